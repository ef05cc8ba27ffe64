"""Quantizers and observers of one's own: through a config, calibration, a file, and a run's record."""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.network.network import Network
from evolq_jax.quant.observers.base import Observer
from evolq_jax.quant.observers.minmax import MINMAX
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import Quantizer, Range
from evolq_jax.quant.quantizers.uniform import Uniform
from evolq_jax.quant.scheme import QuantConfig, Rule
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.quantized.calibrate import calibrate
from evolq_jax.quantized.files import load
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.runs.config_json import from_json, to_json
from evolq_jax.typing import Array
from tests.tiny import Tiny


@dataclass(frozen=True)
class Signs(Quantizer):
    """A scale by sign: codes -1, 0 and 1."""

    def code_range(self, spec: QuantSpec, bits: Array) -> tuple[Array, Array]:
        del spec
        return -jnp.ones_like(bits), jnp.ones_like(bits)

    def encode(self, spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
        return jnp.clip(jnp.round(x / site_qparams.scale), -1, 1)

    def decode(self, spec: QuantSpec, site_qparams: SiteQParams, codes: Array) -> Array:
        return codes * site_qparams.scale

    def num_candidates(self, spec: QuantSpec) -> int:
        return 8

    def candidate(self, spec: QuantSpec, bits: Array, bounds: Range, index: Array) -> SiteQParams:
        scale = jnp.maximum(-bounds[0], bounds[1]) * (1 - index / 8)
        return SiteQParams(scale, jnp.zeros_like(scale), bits)


class Doubled(Observer):
    def combine_ranges(self, batches: Range) -> Range:
        low, high = super().combine_ranges(batches)
        return 2 * low, 2 * high


SIGNS = Signs("signs", "keeps signs", "adds or subtracts", uses=("weight",))
DOUBLED = Doubled("doubled", "takes twice the extremes")
CONFIG = QuantConfig(
    "matmul",
    activation_observer=DOUBLED,
    rules=(Rule("blocks/mlp/fc1/weight", quantizer=SIGNS), Rule("blocks/norm1", observer=MINMAX)),
)


@pytest.fixture(scope="module")
def own(network: Network, tiny: Tiny) -> QuantizedNetwork:
    return calibrate(network, tiny.pixels, CONFIG, chain=("ranges",))


def test_they_are_what_calibration_uses(own: QuantizedNetwork, network: Network, tiny: Tiny) -> None:
    config = QuantConfig("matmul", activation_observer="minmax")
    plain = calibrate(network, tiny.pixels, config, chain=("ranges",))

    def ratio(site: str) -> Array:
        return own.qparams[site].scale / plain.qparams[site].scale

    np.testing.assert_allclose(ratio("blocks/norm2"), 2.0, rtol=1e-5)
    np.testing.assert_allclose(ratio("blocks/norm1"), 1.0, rtol=1e-5)
    spec, site = dict(own.specs)["blocks/mlp/fc1/weight"], own.qparams["blocks/mlp/fc1/weight"]
    codes = SIGNS.encode(spec, site, own.params["blocks"]["mlp"]["fc1"]["weight"])
    assert set(np.unique(codes)) == {-1, 0, 1}
    assert len(np.unique(site.scale)) > len(site.scale)  # channels choose for themselves
    assert np.isfinite(own(tiny.pixels)).all()


def test_a_file_names_them_and_they_are_given_to_load_it(
    own: QuantizedNetwork, tiny: Tiny, tmp_path: Path
) -> None:
    own.save(tmp_path / "own")
    again = load(tmp_path / "own", tiny.parts, own=(SIGNS, DOUBLED))
    np.testing.assert_array_equal(again(tiny.pixels), own(tiny.pixels))
    with pytest.raises(UserError, match=r"saved with a \w+ that is not there; pass it .* '(signs|doubled)'"):
        load(tmp_path / "own", tiny.parts)


def test_a_run_records_their_names_and_refuses_to_go_on_from_these_alone(
    network: Network, tiny: Tiny
) -> None:
    text = to_json(Experiment(quant=CONFIG))
    assert '"doubled"' in text
    assert '"signs"' in text
    again = from_json(text, "it").quant
    assert to_json(Experiment(quant=again)) == text
    assert again == from_json(text, "it").quant
    with pytest.raises(UserError, match="that evolq_jax brings along"):
        calibrate(network, tiny.pixels, again)


def test_names_of_ours_are_ours() -> None:
    with pytest.raises(UserError, match="weight_observer has 'minmax', which is not the one"):
        QuantConfig(weight_observer=Doubled("minmax", "does otherwise"))
    assert QuantConfig(weight_observer=Doubled("mine", "does otherwise"))
    with pytest.raises(UserError, match=r"rules\[0\].quantizer has 'uniform', which is not the one"):
        QuantConfig(rules=(Rule("*", quantizer=Uniform(does="does otherwise")),))
    assert QuantConfig(rules=(Rule("*", quantizer=Uniform(name="mine", does="does otherwise")),))
    with pytest.raises(UserError, match="softmax_quantizer 'signs' is for weights"):
        QuantConfig(softmax_quantizer=SIGNS)
