from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.links import ranges
from evolq_jax.errors import UserError
from evolq_jax.network.run import at
from evolq_jax.network.sites import is_stacked, observe
from evolq_jax.quant.qparams import QParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, Rule, resolve
from evolq_jax.quant.spec import Specs
from evolq_jax.trees import flatten
from tests.quant.observers import reference
from tests.tiny import Tiny

# Every observer somewhere, inside and outside the blocks; some sites in float, as compiling takes time.
FLOAT = ("patch_embed/proj", "blocks/attn/logits", "blocks/attn/proj", "blocks/norm2", "norm", "head")
CONFIG = QuantConfig(
    scheme="fully_quantized",
    weight_bits=4,
    activation_observer="omse",
    residual_observer="ptf",
    gelu_quantizer="uniform",
    quantize_image=True,
    rules=(
        *(Rule(name, bits=0) for name in FLOAT),
        Rule("image", observer="percentile"),
        Rule("pos_embed", observer="percentile"),
        Rule("tokens", observer="ema"),
        Rule("blocks/norm1", observer="ema", per_channel=True),
        Rule("blocks/attn/qkv", observer="percentile"),
        Rule("blocks/attn/context", observer="minmax", signed=True, bits=6),
        Rule("blocks/attn/softmax", quantizer="log2", bits=4),
        Rule("blocks/mlp/gelu", observer="omse_shared", per_channel=True, bits=3),
        Rule("blocks/mlp/fc2", observer="omse", per_channel=True, bits=3),
        Rule("blocks/mlp/fc1/weight", observer="omse_shared"),
        Rule("head/weight", observer="minmax", signed=True, bits=3),
    ),
)


@pytest.fixture(scope="module")
def specs(tiny: Tiny) -> Specs:
    return resolve(CONFIG, tiny.sites).specs


def found_ranges(tiny: Tiny, specs: Specs, chunk: int) -> QParams:
    given, sites = (tiny.parts, specs, tiny.params, jnp.split(tiny.images, 2)), tiny.sites
    start = blank_qparams(specs, resolve(CONFIG, sites).bits, sites)
    return calibrate(*given, sites=sites, qparams=start, chunk=chunk).qparams


@pytest.fixture(scope="module")
def qparams(tiny: Tiny, specs: Specs) -> QParams:
    return found_ranges(tiny, specs, 6)


def test_every_site_has_the_scales_of_its_observer(tiny: Tiny, specs: Specs, qparams: QParams) -> None:
    """Stacked sites against one block at a time, on the tensors that the float network gives."""
    uniform = {name: spec for name, spec in specs if spec.quantizer.name == "uniform"}
    assert set(qparams) == {name for name, _ in specs}
    without = qparams["blocks/attn/softmax"]  # log2 has bits, and no scale to be found
    assert (without.scale == 1).all()
    assert (without.bits == 4).all()
    activations = dict.fromkeys(name for name in uniform if not tiny.sites[name].is_weight)
    record = jax.jit(lambda p, x: observe(tiny.parts, lambda name, x, _: x, p, x, stats=activations))
    recorded = [record(tiny.params, x) for x in jnp.split(tiny.images, 2)]
    weights = flatten(tiny.params)
    for name, spec in uniform.items():
        found = [weights[name]] if tiny.sites[name].is_weight else [batch[name] for batch in recorded]
        if not is_stacked(tiny.parts, name):
            reference.check(spec, [np.asarray(x) for x in found], qparams[name])
            continue
        for block in range(tiny.config.depth):
            site_qparams = at(qparams[name], block)
            assert site_qparams.scale.ndim == found[0].ndim - 1
            reference.check(spec, [np.asarray(x[block]) for x in found], site_qparams)


def test_the_chunk_changes_no_range(tiny: Tiny, specs: Specs, qparams: QParams) -> None:
    for name, site_qparams in found_ranges(
        tiny, specs, chunk=4
    ).items():  # which does not divide a batch of 6
        np.testing.assert_allclose(site_qparams.scale, qparams[name].scale, rtol=1e-5, err_msg=name)
        np.testing.assert_array_equal(site_qparams.zero_point, qparams[name].zero_point, err_msg=name)


def test_what_does_not_fit_is_found_in_steps(
    tiny: Tiny, specs: Specs, qparams: QParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "KEPT_BYTES", 0)
    for name, site_qparams in found_ranges(tiny, specs, 6).items():
        np.testing.assert_allclose(site_qparams.scale, qparams[name].scale, rtol=1e-5, err_msg=name)
        np.testing.assert_array_equal(site_qparams.zero_point, qparams[name].zero_point, err_msg=name)


def test_weights_need_no_images_and_progress_is_told(tiny: Tiny) -> None:
    told: list[tuple[Any, ...]] = []
    weights_only = resolve(QuantConfig(rules=(Rule("*", bits=0), Rule("*/weight", bits=4))), tiny.sites).specs
    start = blank_qparams(weights_only, 4, tiny.sites)
    given = tiny.parts, weights_only, tiny.params, []
    params, reference, qparams = calibrate(*given, sites=tiny.sites, qparams=start)
    assert params is reference is tiny.params
    assert set(qparams) == {name for name, _ in weights_only}
    one = resolve(QuantConfig(rules=(Rule("*", bits=0), Rule("head", bits=8))), tiny.sites).specs
    batches = jnp.split(tiny.images, 3)
    calibrate(
        tiny.parts,
        one,
        tiny.params,
        batches,
        sites=tiny.sites,
        qparams=blank_qparams(one, 8, tiny.sites),
        stage=lambda name: lambda *step: told.append((name, *step)),
    )
    assert told == [("ranges", done, 3) for done in (1, 2, 3)]


def test_an_unknown_link_of_the_chain_is_refused(tiny: Tiny) -> None:
    with pytest.raises(UserError, match="unknown initialiser 'range'; did you mean 'ranges'"):
        calibrate(tiny.parts, (), tiny.params, [], sites=tiny.sites, qparams={}, chain=["range"])
