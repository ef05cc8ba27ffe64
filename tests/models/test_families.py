"""What holds for the networks of all families: pieces, folding, roles of sites, files, bad input."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evolq_jax.errors import UserError
from evolq_jax.models.checkpoint import load_checkpoint, save_params
from evolq_jax.models.cifar_resnet import CifarResNetConfig
from evolq_jax.models.levit import LeViTConfig
from evolq_jax.models.registry import REGISTRY
from evolq_jax.models.swin import SwinConfig
from evolq_jax.models.vit import ViTConfig
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import Reading, float_reading
from evolq_jax.network.run import at, forward, run_blocks, scan_blocks
from evolq_jax.quant.sites import FloatSite, float_sites
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params
from tests.families import CLASSES, ENTRIES, make_small, unfolded_params
from tests.models.recipe import Arrays
from tests.tiny import make_tiny

ALL = pytest.mark.parametrize("name", ENTRIES)


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, entry in ENTRIES.items():
        monkeypatch.setitem(REGISTRY, name, entry)


def saved(name: str, path: Path) -> Path:
    save_params(path, unfolded_params(ENTRIES[name]), {"model": name})
    return path


def changed(path: Path, changes: Arrays, without: str = "") -> Path:
    weights = {key: array for key, array in load_file(path).items() if key != without}
    save_file(weights | changes, path)
    return path


@partial(jax.jit, static_argnums=0)
def logits_of(parts: ModelParts, params: Params, images: Array) -> Array:
    return forward(parts, float_reading(params), images)


class Scaling(FloatSite):
    """The float network but for one site, times a factor."""

    def __init__(self, name: str, factor: Array) -> None:
        self.name, self.factor = name, factor

    def __call__(self, name: str, x: Array) -> Array:
        return self.factor * x if name == self.name else x


@pytest.mark.parametrize("name", [*ENTRIES, "vit"])
def test_features_are_what_the_classifiers_read_and_nothing_else(name: str) -> None:
    """Logits are the features times weights plus a bias that is the same for all images."""
    network = make_small(name) if name in ENTRIES else make_tiny()
    parts, params, images = network.parts, network.params, network.images

    @jax.jit
    def logits(factor: Array, params: Params, images: Array) -> Array:
        site = Scaling(parts.features, factor)
        return forward(
            parts, Reading(lambda segment, _: FloatSite() if segment else site, params, {}), images
        )

    zero, one, two = (logits(jnp.float32(factor), params, images) for factor in (0, 1, 2))
    np.testing.assert_allclose(zero, jnp.broadcast_to(zero[:1], zero.shape), atol=1e-5)
    np.testing.assert_allclose(two - one, one - zero, rtol=1e-4, atol=1e-4)
    assert float(jnp.std(one - zero, axis=0).min()) > 1e-2


@ALL
def test_forward_is_a_plain_loop_over_the_blocks(name: str) -> None:
    small = make_small(name)
    x, site = small.images, float_sites("", {})
    for segment in small.parts.segments:
        x = first = jax.jit(lambda p, x, s=segment: s.enter(p, site, x))(small.params, x)
        block = jax.jit(lambda p, x, s=segment: s.block(p, site, x))
        inputs: list[Array] = []
        for index in range(segment.length):
            inputs.append(x)
            x = block(at(small.params[segment.name], index), x)
        out, seen = scan_blocks(segment, float_reading(small.params), first)
        np.testing.assert_allclose(out, x, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(seen, jnp.stack(inputs), rtol=1e-4, atol=1e-4)
        last = segment.length - 1
        end = run_blocks(segment, float_reading(small.params), inputs[last], start=last, stop=segment.length)
        np.testing.assert_allclose(end, x, rtol=1e-4, atol=1e-4)
    logits = small.parts.head(small.params, site, x)
    assert logits.shape == (12, CLASSES)
    assert float(jnp.std(logits, axis=0).min()) > 1e-2  # the images do differ
    whole = logits_of(small.parts, small.params, small.images)
    np.testing.assert_allclose(whole, logits, rtol=1e-4, atol=1e-4)


@ALL
def test_folded_batch_norms_leave_the_network_as_it_is(name: str) -> None:
    small = make_small(name)
    folded, unfolded = (logits_of(small.parts, p, small.images) for p in (small.params, small.unfolded))
    np.testing.assert_allclose(folded, unfolded, rtol=1e-4, atol=1e-4)
    assert not any("running" in leaf for leaf in flatten(small.params))


@ALL
def test_every_leaf_of_every_block_matters(name: str) -> None:
    small = make_small(name)
    segments = {segment.name for segment in small.parts.segments}
    loss = jax.jit(jax.grad(lambda p: (logits_of(small.parts, p, small.images) ** 2).sum()))
    for leaf, value in flatten(loss(small.params)).items():
        for block in value if leaf.split("/")[0] in segments else value[None]:
            assert float(jnp.abs(block).max()) > 0, leaf


@ALL
def test_a_written_file_gives_the_network_back(name: str, tmp_path: Path) -> None:
    small = make_small(name)
    model = load_checkpoint(name, saved(name, tmp_path / "w.safetensors"))
    got, want = flatten(model.params), flatten(small.params)
    assert got.keys() == want.keys()
    for leaf, array in want.items():
        np.testing.assert_allclose(got[leaf], array, rtol=1e-5, atol=1e-6)
    kept = flatten(load_checkpoint(name, tmp_path / "w.safetensors", fold_batch_norm=False).params)
    assert all(np.array_equal(kept[leaf], array) for leaf, array in flatten(small.unfolded).items())
    prefixed = {f"module.{key}": array for key, array in load_file(tmp_path / "w.safetensors").items()}
    save_file(prefixed | {"module.x.num_batches_tracked": np.zeros((), np.int64)}, tmp_path / "w.safetensors")
    again = flatten(load_checkpoint(name, tmp_path / "w.safetensors").params)
    assert all(np.array_equal(again[leaf], array) for leaf, array in got.items())


def test_the_authors_swin_files_have_other_keys(tmp_path: Path) -> None:
    path = saved("small_swin", tmp_path / "w.safetensors")
    theirs = {
        key.replace("head.fc.", "head.").replace("layers.1.downsample", "layers.0.downsample"): array
        for key, array in load_file(path).items()
    }
    buffers = {
        "layers.0.blocks.1.attn_mask": np.zeros(3),
        "layers.0.blocks.0.attn.relative_position_index": np.ones(3),
    }
    save_file(theirs | buffers, tmp_path / "theirs.safetensors")
    got, want = (
        flatten(load_checkpoint("small_swin", file).params)
        for file in (tmp_path / "theirs.safetensors", path)
    )
    assert all(np.array_equal(got[leaf], array) for leaf, array in want.items())


@ALL
def test_missing_and_extra_keys_are_named(name: str, tmp_path: Path) -> None:
    path = saved(name, tmp_path / "w.safetensors")
    key = next(key for key in load_file(path) if key.count(".") > 2)
    changed(path, {"other.weight": np.ones(2, np.float32)}, without=key)
    with pytest.raises(UserError, match=rf"lacks 1 keys: {key}; has 1 keys beside: other.weight") as caught:
        load_checkpoint(name, path)
    assert "\n" not in str(caught.value)


@ALL
def test_another_variant_of_the_family_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, entry = saved(name, tmp_path / "w.safetensors"), ENTRIES[name]
    if isinstance(entry.config, CifarResNetConfig):
        deeper = replace(entry.config, blocks=4)
    elif isinstance(entry.config, ViTConfig):
        deeper = replace(entry.config, depth=4)
    else:
        first, second, *rest = entry.config.depths
        deeper = replace(entry.config, depths=(first, second + 2, *rest))
    monkeypatch.setitem(REGISTRY, "deeper", replace(entry, name="deeper", config=deeper))
    with pytest.raises(UserError, match=rf"not weights of deeper: lacks .*it fits .*{name}: give") as caught:
        load_checkpoint("deeper", path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_family_are_named(tmp_path: Path) -> None:
    path = saved("small_levit", tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="not weights of small_swin; they fit small_levit: give that name"):
        load_checkpoint("small_swin", path)


@ALL
def test_the_number_of_classes_is_the_files(name: str, tmp_path: Path) -> None:
    entry = replace(ENTRIES[name], config=replace(ENTRIES[name].config, num_classes=9))
    save_params(tmp_path / "w.safetensors", unfolded_params(entry), {"model": name})
    model = load_checkpoint(name, tmp_path / "w.safetensors")
    assert model.config.num_classes == 9
    assert logits_of(model.parts, model.params, make_small(name).images).shape == (12, 9)


@pytest.mark.parametrize("size", [0, 112, 230, 256])
def test_images_that_windows_do_not_divide_are_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"image_size {size} is no multiple of 224: windows of 7 x 7"):
        SwinConfig(image_size=size)
    with pytest.raises(UserError, match=r"depths \(2, 3\) must be even"):
        SwinConfig(depths=(2, 3))
    assert SwinConfig(image_size=448).resolution(3) == 14


def test_images_that_the_stem_does_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="image_size 220 is no multiple of the stem's 16"):
        LeViTConfig(image_size=220)
    assert [LeViTConfig().resolution(stage) for stage in range(3)] == [14, 7, 4]


def test_a_checkpoint_for_other_images_is_refused(tmp_path: Path) -> None:
    saved("small_swin", tmp_path / "model.safetensors")
    settings = {"architecture": "small_swin", "pretrained_cfg": {"input_size": [3, 20, 20]}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"image_size 20 is no multiple of 8"):
        load_checkpoint("small_swin", tmp_path)
