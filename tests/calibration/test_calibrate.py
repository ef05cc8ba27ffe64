"""Chains with links from outside: their settings, and what a chain reads off them."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from benchmarks.timing import count_compilations
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.chain import LINKS, chain_cost, check_chain, check_links, group_links, specs_after
from evolq_jax.calibration.layer import Layer, Moments
from evolq_jax.calibration.link import (
    CHANNELS,
    Calibration,
    Cost,
    LayerLink,
    NetworkLink,
    NotAfter,
    State,
    WalkConfig,
)
from evolq_jax.calibration.links.bias import BIAS
from evolq_jax.calibration.links.ranges import RANGES
from evolq_jax.calibration.links.ridge import RIDGE
from evolq_jax.errors import UserError
from evolq_jax.quant.qparams import QParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.trees import flatten
from tests.families import make_small
from tests.tiny import Tiny


@dataclass(frozen=True)
class WidenConfig:
    factor: float = 2.0


def widen(calibration: Calibration, state: State, settings: WidenConfig) -> State:
    del calibration
    wider = {
        name: site_qparams._replace(scale=settings.factor * site_qparams.scale)
        for name, site_qparams in state.qparams.items()
    }
    return state._replace(qparams=wider)


@struct.dataclass
class ShrinkConfig:
    factor: float = 0.5


def shrink(spec: QuantSpec | None, moments: Moments, layer: Layer, settings: ShrinkConfig) -> Layer:
    del spec, moments
    return layer._replace(bias=settings.factor * layer.bias)


WIDEN = NetworkLink("widen", "widens every range", widen, settings=WidenConfig())
SHRINK = LayerLink("shrink", "shrinks biases", shrink, settings=ShrinkConfig(), changes_params=True)


@pytest.fixture(scope="module")
def specs(tiny: Tiny) -> Specs:
    return resolve(QuantConfig("matmul", weight_bits=3, weight_observer="minmax"), tiny.sites).specs


def run(tiny: Tiny, specs: Specs, *chain: str | NetworkLink | LayerLink) -> State:
    given, start = (tiny.parts, specs, tiny.params, [tiny.images]), blank_qparams(specs, 3, tiny.sites)
    return calibrate(*given, sites=tiny.sites, qparams=start, chain=chain, chunk=6)


def scales(qparams: QParams) -> list[np.ndarray]:
    return [np.asarray(site_qparams.scale) for site_qparams in qparams.values()]


def test_a_link_from_outside_stands_beside_names_with_its_own_settings(tiny: Tiny, specs: Specs) -> None:
    plain = run(tiny, specs, "ranges")
    for link, factor in ((WIDEN, 2.0), (replace(WIDEN, settings=WidenConfig(3.0)), 3.0)):
        wider = run(tiny, specs, "ranges", link)
        for before, after in zip(scales(plain.qparams), scales(wider.qparams), strict=True):
            np.testing.assert_allclose(after, factor * before, rtol=1e-6)


def test_a_layer_link_from_outside_shares_the_walk_and_traces_its_settings(tiny: Tiny, specs: Specs) -> None:
    biases = [name for name in flatten(tiny.params) if name.endswith(("qkv/bias", "fc1/bias"))]
    for factor in (0.5, 0.25):
        link = replace(SHRINK, settings=ShrinkConfig(factor))
        with count_compilations() as found:
            corrected, shrunk = (
                flatten(run(tiny, specs, "ranges", *chain).params) for chain in (("bias",), ("bias", link))
            )
        for name in biases[:1]:  # later layers see what this one gives
            first = np.asarray(shrunk[name])[0], factor * np.asarray(corrected[name])[0]
            np.testing.assert_allclose(*first, rtol=1e-5)
    assert not found.seconds  # another number compiles nothing


def test_settings_of_a_layer_link_that_cannot_be_traced_are_refused() -> None:
    with pytest.raises(UserError, match=r"'shrink' enter a jitted function: make .* flax\.struct\.dataclass"):
        replace(SHRINK, settings=WidenConfig())


def test_neighbouring_layer_links_that_walk_alike_are_one_step() -> None:
    other = replace(BIAS, walk=WalkConfig(pull=0.5))
    steps = group_links([RANGES, RIDGE, SHRINK, other, WIDEN, WIDEN, BIAS])
    assert steps == [(RANGES,), (RIDGE, SHRINK), (other,), (WIDEN,), (WIDEN,), (BIAS,)]


def test_links_that_share_no_images_get_all_of_them(tiny: Tiny, specs: Specs) -> None:
    told: list[str] = []

    def stage(name: str) -> partial[None]:
        told.append(name)
        return partial(lambda done, total: None)

    chain = ("ranges", "ridge", "bias", WIDEN)
    given, start = (tiny.parts, specs, tiny.params, [tiny.images]), blank_qparams(specs, 3, tiny.sites)
    calibrate(*given, sites=tiny.sites, qparams=start, chain=chain, stage=stage)
    assert told == ["ranges", "ridge, bias", "widen"]


def test_costs_that_links_know_add_up(tiny: Tiny, specs: Specs) -> None:
    dear = replace(WIDEN, cost=lambda parts, specs, settings, num_images: Cost(quantized=7 * num_images))
    cost = partial(chain_cost, parts=tiny.parts, specs=specs, num_images=12)
    assert cost([RANGES, RIDGE, BIAS]) == (0, 0)
    assert cost([RANGES, RIDGE, dear, BIAS, dear]) == (0, 2 * 84)


def test_what_a_link_says_of_itself_holds_from_outside_too(tiny: Tiny, specs: Specs) -> None:
    rounding = replace(WIDEN, name="mine", rounds=True)
    assert any(spec.codes for _, spec in specs_after([RANGES, rounding], specs, tiny.sites))
    assert specs_after([RANGES, WIDEN], specs, tiny.sites) == specs
    with pytest.raises(UserError, match="'gptq' after 'mine': it rounds weights that have been rounded"):
        check_chain([RANGES, rounding, LINKS["gptq"]])
    late = replace(WIDEN, not_after=NotAfter(lambda earlier: earlier.corrects, "would widen what fits"))
    with pytest.raises(UserError, match="'widen' after 'bias': it would widen what fits; put 'widen'"):
        check_chain([RANGES, BIAS, late])
    with pytest.raises(UserError, match="'widen' after 'final', which makes up for what others leave"):
        check_chain([RANGES, replace(WIDEN, name="final", last=True), WIDEN])
    check_chain([replace(WIDEN, first=True)])
    small = make_small("small_resnet")
    check_links([RANGES], small.parts, ())  # without it, as the message says
    with pytest.raises(UserError, match=r"'widen' rescales what linear layers read .* leave it out"):
        calibrate(
            small.parts,
            (),
            small.params,
            [small.images],
            sites=small.sites,
            qparams={},
            chain=("ranges", replace(WIDEN, needs=(CHANNELS,))),
        )


def test_a_check_of_its_own_stops_a_link_before_anything_is_computed(tiny: Tiny, specs: Specs) -> None:
    def refuse(parts: object, specs: Specs, settings: WidenConfig) -> None:
        raise UserError(f"nothing of {len(specs)} sites can be widened by {settings.factor}")

    link = replace(WIDEN, check=refuse)
    with pytest.raises(UserError, match=r"sites can be widened by 2\.0"):
        calibrate(tiny.parts, specs, tiny.params, [], sites=tiny.sites, qparams={}, chain=("ranges", link))


def test_the_reference_is_rescaled_but_not_corrected(tiny: Tiny, specs: Specs) -> None:
    found = run(tiny, specs, "ranges", "fold", "bias")
    params, reference, before = (flatten(tree) for tree in (found.params, found.reference, tiny.params))
    norm, proj = "blocks/norm1/weight", "blocks/attn/proj/bias"
    np.testing.assert_array_equal(params[norm], reference[norm])
    assert not jnp.array_equal(reference[norm], before[norm])
    np.testing.assert_array_equal(reference[proj], before[proj])
    assert not jnp.array_equal(params[proj], before[proj])
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
