"""Rescaled channels: the float network stays what it was, and the quantized one is what it stands for."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.chain import check_links, find_links
from evolq_jax.calibration.link import Calibration, State
from evolq_jax.calibration.links.fold import FOLD, MAX_RATIO, norms, reparametrise, rescale
from evolq_jax.calibration.links.ranges import RANGES
from evolq_jax.data import load_images
from evolq_jax.errors import UserError
from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.models.vit import make_vit
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import Reading, float_reading
from evolq_jax.network.run import forward, normalize
from evolq_jax.network.sites import list_sites
from evolq_jax.quant.observers.of_weight import weight_qparams
from evolq_jax.quant.qparams import QParams, blank_qparams
from evolq_jax.quant.quantizers.uniform import UNIFORM
from evolq_jax.quant.scheme import QuantConfig, Rule, resolve
from evolq_jax.quant.sites import float_sites, quant_sites
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params, SiteInfo
from tests.families import make_small
from tests.numbers import width
from tests.tiny import make_tiny

REAL = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
NAMES = ("tiny_vit", "small_swin")
ALL_WITH_CHANNELS = (*NAMES, "tiny_deit")  # two heads read DeiT's last norm


@cache
def network(name: str) -> tuple[ModelParts, Params, Array, dict[str, SiteInfo]]:
    if name == "tiny_vit":
        tiny = make_tiny()
        return tiny.parts, tiny.params, tiny.images, tiny.sites
    if name == "tiny_deit":
        return distilled()
    small = make_small(name)
    return small.parts, small.params, small.images, small.sites


def distilled() -> tuple[ModelParts, Params, Array, dict[str, SiteInfo]]:
    tiny, rng = make_tiny(1), np.random.default_rng(5)
    parts = make_vit(replace(tiny.config, distilled=True))
    params = tiny.params | {
        "dist_token": jnp.asarray(rng.standard_normal((1, 1, 32)), jnp.float32),
        "pos_embed": jnp.asarray(rng.standard_normal((1, 6, 32)), jnp.float32),
        "head_dist": jax.tree.map(lambda leaf: leaf[::-1], tiny.params["head"]),
    }
    return parts, params, tiny.images, list_sites(parts, params, (16, 16, 3))


def calibration(name: str, specs: Specs) -> Calibration:
    parts, _, images, sites = network(name)
    return Calibration(parts, specs, sites, [images[:6], images[6:]], 3)


def blank_state(calibrated: Calibration, params: Params) -> State:
    """What a chain starts from, of eight bits."""
    return State(params, params, blank_qparams(calibrated.specs, 8, calibrated.sites))


@cache
def compiled(name: str, specs: Specs) -> Callable[[Params, QParams], Array]:
    parts, _, images, _ = network(name)
    site = quant_sites(specs) if specs else float_sites
    return jax.jit(lambda params, qparams: forward(parts, Reading(site, params, qparams), images))


def logits(name: str, specs: Specs, params: Params, qparams: QParams) -> np.ndarray:
    return np.asarray(compiled(name, specs)(params, qparams))


def close(got: np.ndarray, want: np.ndarray, rtol: float = 2e-5) -> None:
    assert np.abs(got - want).max() <= rtol * np.abs(want).max()


def outputs_of_norms(name: str, **changes: object) -> Specs:
    """Quantizers for the outputs of LayerNorms that linear layers read, and for nothing else."""
    parts, _, _, sites = network(name)
    read = {entry.site for entry in parts.channels if "layer_norm" in sites[entry.site].roles}
    config = QuantConfig("matmul", rules=(Rule("*", bits=0), *(Rule(site, 8) for site in sorted(read))))
    return tuple((site, replace(spec, **changes)) for site, spec in resolve(config, sites).specs)


@pytest.mark.parametrize("name", ALL_WITH_CHANNELS)
@settings(max_examples=10, derandomize=True, deadline=None, database=None)
@given(
    seed=st.integers(0, 2**32 - 1), octaves=st.floats(0.1, np.log2(MAX_RATIO) / 2), shifted=st.floats(0.1, 3)
)
def test_any_factors_and_shifts_leave_the_function_as_it_is(
    name: str, seed: int, octaves: float, shifted: float
) -> None:
    """Factors up to `MAX_RATIO` apart, as far as `fold` ever takes them."""
    parts, params, _, sites = network(name)
    rng, rescaled = np.random.default_rng(seed), []
    for entry in parts.channels:
        info = sites[entry.site]
        shape = (*([] if info.depth is None else [info.depth]), *[1] * (len(info.shape) - 1), info.shape[-1])
        factor = 2 ** (octaves * rng.uniform(-1, 1, shape))
        shift = shifted * factor * rng.standard_normal(shape)
        # a shift needs biases: patch merging has none, and quantized softmax weights do not sum to one
        shift *= "layer_norm" in info.roles and "downsample" not in entry.site
        rescaled.append((entry, jnp.float32(factor), jnp.float32(shift)))
    assert len(rescaled) >= 4
    state = rescale(State(params, params, {}), rescaled)
    want = logits(name, (), params, {})
    for changed in (state.params, state.reference):
        close(logits(name, (), changed, {}), want, 1e-4)
    unlike = [k for k, v in flatten(state.params).items() if not np.array_equal(v, flatten(params)[k])]
    assert len(unlike) >= 3 * len(rescaled)


@pytest.mark.slow
@pytest.mark.parametrize("chain", [("ranges", "fold"), ("ranges", "smooth", "fold")])
def test_on_a_real_network_with_its_outliers_nothing_changes(chain: tuple[str, ...], shared: Path) -> None:
    model = load_checkpoint(REAL, shared / f"data/weights/{REAL}.safetensors")
    found = load_images(shared / "data/imagenet/calib", model.preprocessing, num=8, cache_dir=None)
    images = normalize(model.preprocessing, jnp.asarray(found.pixels))
    sites = list_sites(model.parts, model.params, (224, 224, 3))
    specs, bits = resolve(
        QuantConfig("matmul", weight_observer="minmax", activation_observer="minmax"), sites
    )
    given, start = (model.parts, specs, model.params, [images]), blank_qparams(specs, bits, sites)
    params = calibrate(*given, sites=sites, qparams=start, chain=chain, chunk=4).params
    run = jax.jit(lambda p: forward(model.parts, float_reading(p), images))
    want, got = np.asarray(run(model.params)), np.asarray(run(params))
    close(got, want, 1e-4)
    assert not np.array_equal(got, want)


def test_folding_changes_norms_and_their_readers_alone() -> None:
    _, params, _, sites = network("tiny_vit")
    specs = resolve(QuantConfig("fully_quantized", activation_observer="pow2"), sites).specs
    calibrated = calibration("tiny_vit", specs)
    state = RANGES(calibrated, blank_state(calibrated, params))
    folded = FOLD(calibrated, state)
    for changed in (folded.params, folded.reference):
        close(logits("tiny_vit", (), changed, {}), logits("tiny_vit", (), params, {}))
    sites_of_norms = [entry.site for entry in norms(calibrated)]
    assert sites_of_norms == ["blocks/norm1", "blocks/norm2", "norm"]
    for site in sites_of_norms:
        for before, after in zip(state.qparams[site], folded.qparams[site], strict=True):
            assert before.shape == after.shape
            assert (after == after[..., :1]).all()  # one for the tensor, however it is kept
    pairs = {site: (state.qparams[site].scale, folded.qparams[site].scale) for site in state.qparams}
    changed = {site for site, (before, after) in pairs.items() if not np.array_equal(before, after)}
    readers = {f"{reader}/weight" for entry in norms(calibrated) for reader in entry.readers}
    assert changed == {*sites_of_norms, *readers}


@pytest.mark.parametrize("signed", [False, True])
def test_one_scale_gives_the_integers_of_one_for_each_channel(signed: bool) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((50, 7)) + rng.standard_normal(7)) * np.exp(2 * rng.standard_normal(7))
    spec, x = QuantSpec(signed=signed, per_channel=True), jnp.asarray(x, jnp.float32)
    own = weight_qparams(spec, width(6, 2), x)
    one, factor, shift = reparametrise(own)
    assert one.scale.shape == one.zero_point.shape == (1, 1)
    want, got = (
        np.asarray(UNIFORM.encode(spec, own, x)),
        np.asarray(UNIFORM.encode(spec, one, (x + shift) / factor)),
    )
    tie = np.abs(np.asarray(x / own.scale) % 1 - 0.5) < 1e-3  # may round either way
    np.testing.assert_array_equal(got[~tie], want[~tie])
    assert tie.mean() < 0.1
    assert len(np.unique(want)) > 20


@pytest.mark.parametrize("name", NAMES)
def test_a_folded_network_computes_what_one_with_a_scale_for_each_channel_does(name: str) -> None:
    """RepQ-ViT's identity, and that the float network stays what it was."""
    _, params, _, _ = network(name)
    by_channel = tuple(
        entry for entry in outputs_of_norms(name, per_channel=True) if "downsample" not in entry[0]
    )
    calibrated = calibration(name, by_channel)
    state = RANGES(calibrated, blank_state(calibrated, params))
    want, exact = logits(name, by_channel, params, state.qparams), logits(name, (), params, {})
    one = tuple((site, replace(spec, per_channel=False)) for site, spec in by_channel)
    calibrated = calibration(name, one)
    folded = FOLD(calibrated, RANGES(calibrated, blank_state(calibrated, params)))
    assert all(folded.qparams[site].scale.shape[-1] == 1 for site, _ in one)
    for changed in (folded.params, folded.reference):
        close(logits(name, (), changed, {}), exact)
    got = logits(name, one, folded.params, folded.qparams)
    # a value at a tie may round the other way: far less than the quantization itself
    assert np.linalg.norm(got - want) < 0.15 * np.linalg.norm(want - exact)


def test_without_a_bias_channels_keep_their_ranges_under_one_zero_point() -> None:
    _, params, _, _ = network("small_swin")
    site = "layers.1.downsample/norm"
    specs = tuple(entry for entry in outputs_of_norms("small_swin") if entry[0] == site)
    calibrated = calibration("small_swin", specs)
    folded = FOLD(calibrated, RANGES(calibrated, blank_state(calibrated, params)))
    by_channel = calibration("small_swin", ((site, replace(specs[0][1], per_channel=True)),))
    own = RANGES(by_channel, blank_state(by_channel, params)).qparams[site]
    factor = np.asarray(params["layers.1.downsample"]["norm"]["weight"]) / np.asarray(
        folded.params["layers.1.downsample"]["norm"]["weight"]
    )
    scale, zero = (np.asarray(leaf).ravel() for leaf in folded.qparams[site][:2])
    low, high = -zero * scale * factor, (255 - zero) * scale * factor
    own_scale, own_zero = (np.asarray(leaf).ravel() for leaf in own[:2])
    assert (low <= -own_zero * own_scale + 1e-5).all()
    assert (high >= (255 - own_zero) * own_scale - 1e-5).all()
    touching = np.isclose(low, -own_zero * own_scale) | np.isclose(high, (255 - own_zero) * own_scale)
    assert touching.all()


def check(parts: ModelParts, *chain: str) -> None:
    check_links(find_links(chain), parts, ())


def test_links_that_rescale_come_before_those_that_correct_and_need_norms() -> None:
    tiny = make_tiny()
    with pytest.raises(UserError, match="put 'fold' before 'gptq'"):
        check(tiny.parts, "ranges", "gptq", "fold")
    with pytest.raises(UserError, match="`ranges` comes first"):
        check(tiny.parts, "fold", "ranges")
    with pytest.raises(UserError, match="put 'smooth' before 'fold'"):
        check(tiny.parts, "ranges", "fold", "smooth")
    with pytest.raises(UserError, match="this network names none"):
        check(make_small("small_resnet").parts, "ranges", "fold")
    check(tiny.parts, "ranges", "fold", "gptq", "bias")
