"""Ranges by what the whole network's output makes of them."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.timing import count_compilations
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.chain import check_chain, find_links
from evolq_jax.calibration.link import Calibration, Link, State
from evolq_jax.calibration.links.clip import CLIP, COARSE, FINE, ClipConfig, clip, clip_cost
from evolq_jax.calibration.links.ranges import RANGES
from evolq_jax.errors import UserError
from evolq_jax.network.reading import float_reading, quantized_reading
from evolq_jax.network.run import forward
from evolq_jax.network.sites import list_sites
from evolq_jax.objective.logits import kl
from evolq_jax.quant.qparams import QParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, Rule, resolve
from evolq_jax.quant.sites import fake_quant_weights
from evolq_jax.typing import Array
from tests.tiny import Tiny, make_tiny
from tests.two_segments import DOWN, WIDTH_A, WITH_DOWN, make_inputs, params_with_down

QUANT = QuantConfig("matmul", weight_bits=3, activation_bits=4, weight_observer="minmax")
SITE = "blocks/mlp/fc2/weight"


def calibration(tiny: Tiny) -> Calibration:
    specs = resolve(QUANT, tiny.sites).specs
    return Calibration(tiny.parts, specs, tiny.sites, [tiny.images[:6], tiny.images[6:]], 6)


def start(tiny: Tiny, calibrated: Calibration) -> State:
    blank = blank_qparams(*resolve(QUANT, tiny.sites), tiny.sites)
    return RANGES(calibrated, State(tiny.params, tiny.params, blank))


@partial(jax.jit, static_argnames=("calibrated_specs",))
def _divergence(calibrated_specs: object, qparams: QParams, images: Array) -> Array:
    tiny, specs = make_tiny(), calibrated_specs
    quantized = fake_quant_weights(specs, tiny.params, qparams)  # type: ignore[arg-type]
    student = forward(tiny.parts, quantized_reading(specs, quantized, qparams), images)  # type: ignore[arg-type]
    return kl(student, forward(tiny.parts, float_reading(tiny.params), images))


def divergence(calibrated: Calibration, qparams: QParams, images: Array) -> float:
    return float(_divergence(calibrated.specs, qparams, images))


def test_moves_help_both_halves_and_tensors_move_as_a_whole(tiny: Tiny) -> None:
    calibrated = calibration(tiny)
    before = start(tiny, calibrated)
    after = CLIP(calibrated, before)
    for half in (tiny.images[:6], tiny.images[6:]):
        assert divergence(calibrated, after.qparams, half) < divergence(calibrated, before.qparams, half)
    moved = 0
    for name, site_qparams in before.qparams.items():
        inside = name.startswith("blocks/")
        lead = site_qparams.scale.shape[0] if inside else 1
        ratio = np.asarray(after.qparams[name].scale / site_qparams.scale).reshape(lead, -1)
        assert np.ptp(ratio, axis=1).max() < 1e-5  # of all channels
        octaves = np.log2(ratio[:, 0])
        grid = [c + f for c in COARSE for f in FINE]
        assert np.abs(octaves[:, None] - grid).min(1).max() < 1e-4
        moved += int((octaves != 0).sum())
        assert inside or (ratio == 1).all()
        np.testing.assert_array_equal(after.qparams[name].zero_point, site_qparams.zero_point)
    assert moved >= 3


def test_images_held_out_decide_on_moves(tiny: Tiny) -> None:
    calibrated = calibration(tiny)
    before = start(tiny, calibrated)
    free, kept = (
        clip(calibrated, before, settings).qparams[SITE].scale
        for settings in (ClipConfig((SITE,), 6, held_out=0.0), ClipConfig((SITE,)))
    )
    at = before.qparams[SITE]
    assert (free[0] != at.scale[0]).all()  # the first block is judged on the same six images in both
    moved = before.qparams | {SITE: at._replace(scale=at.scale.at[0].set(free[0]))}
    held_out = tiny.images[6:]
    agree = divergence(calibrated, moved, held_out) < divergence(calibrated, before.qparams, held_out)
    np.testing.assert_array_equal(kept[0], free[0] if agree else at.scale[0])


def test_without_quantizers_nothing_can_be_clipped(tiny: Tiny) -> None:
    chain = ("ranges", replace(CLIP, settings=ClipConfig(("*/attn/qvk/weight",))))
    specs = resolve(QUANT, tiny.sites).specs
    with pytest.raises(UserError, match="matches no quantization site"):
        calibrate(tiny.parts, specs, tiny.params, [tiny.images], sites=tiny.sites, qparams={}, chain=chain)


def three_segments(times: int = 1) -> tuple[Calibration, State]:
    """Four, one and six blocks with `times` 2, of two widths; weights alone are quantized."""
    segments = tuple(s if s is DOWN else replace(s, length=times * s.length) for s in WITH_DOWN.segments)
    parts, params = replace(WITH_DOWN, segments=segments), params_with_down()
    params |= {name: {"weight": jnp.tile(params[name]["weight"], (times, 1, 1))} for name in "ab"}
    sites = list_sites(parts, params, (WIDTH_A,))
    specs, bits = resolve(
        replace(QUANT, rules=(Rule("*", bits=0), Rule("*/weight", bits=3, per_channel=True))), sites
    )
    calibrated = Calibration(parts, specs, sites, [make_inputs(24)], 24)
    return calibrated, RANGES(calibrated, State(params, params, blank_qparams(specs, bits, sites)))


def test_every_segment_is_visited_in_order() -> None:
    calibrated, before = three_segments()
    images = calibrated.batches[0]

    @jax.jit
    def score(qparams: QParams) -> Array:
        quantized = fake_quant_weights(calibrated.specs, before.params, qparams)
        student = forward(WITH_DOWN, quantized_reading(calibrated.specs, quantized, qparams), images)
        return kl(student, forward(WITH_DOWN, float_reading(before.params), images))

    want = dict(before.qparams)
    first = [("a/weight", 0), ("a/weight", 1), ("down/weight", 0)]
    for name, block in [*first, *(("b/weight", block) for block in range(3))]:
        found, at = 0.0, want[name]
        for grid in (COARSE, FINE):
            ratios = [2.0 ** (found + octaves) for octaves in grid]
            trials = [want | {name: at._replace(scale=at.scale.at[block].mul(r))} for r in ratios]
            found += grid[int(np.argmin([score(trial) for trial in trials]))]
        want[name] = at._replace(scale=at.scale.at[block].mul(2.0**found))
    after = clip(calibrated, before, ClipConfig(held_out=0.0)).qparams
    for name in ("a/weight", "down/weight", "b/weight"):
        np.testing.assert_allclose(after[name].scale, want[name].scale, rtol=1e-5)
        assert not np.array_equal(after[name].scale, before.qparams[name].scale)


def test_one_program_serves_all_blocks_of_a_segment() -> None:
    def compilations(times: int) -> int:
        calibrated, before = three_segments(times)
        jax.clear_caches()
        with count_compilations() as found:
            clip(calibrated, before, ClipConfig(held_out=0.0))
        return len(found.seconds)

    assert compilations(1) == compilations(2) > 0


def test_what_it_costs_is_counted_in_images_through_the_network() -> None:
    calibrated, _ = three_segments()  # one site in each of six blocks, which run 6, 5, 4, 3, 2 and 1 blocks
    count = partial(clip_cost, WITH_DOWN, calibrated.specs)
    assert count(ClipConfig(held_out=0.0), 20) == (0, 21 / 6 * 10 * 20)
    assert count(ClipConfig(num_images=12, held_out=0.5), 20) == (0, 21 / 6 * (10 * 6 + 2 * 6))


def links(*names: str) -> tuple[Link, ...]:
    return find_links(names)


@pytest.mark.parametrize("rounding", ["gptq", "brecq"])
def test_clipping_comes_before_rounding_and_after_folding(rounding: str) -> None:
    with pytest.raises(UserError, match=f"'clip' after '{rounding}'.*put 'clip' before '{rounding}'"):
        check_chain(links("ranges", rounding, "clip"))
    with pytest.raises(UserError, match="put 'fold' before 'clip'"):
        check_chain(links("ranges", "clip", "fold"))
    check_chain(links("ranges", "fold", "clip", "ridge", rounding))


@pytest.mark.parametrize(("field", "value"), [("num_images", 0), ("held_out", 1.0)])
def test_settings_that_mean_nothing_are_refused(field: str, value: float) -> None:
    with pytest.raises(UserError, match=f"calibration.clip.{field}"):
        ClipConfig(**{field: value})  # type: ignore[arg-type]
