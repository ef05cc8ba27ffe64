"""Wrappers put prefixes before the keys of every family; shapes say what names and files do not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from evolq_jax.errors import UserError
from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.models.convert import Weights, detect, write
from evolq_jax.models.registry import REGISTRY, Entry, param_shapes
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Preprocessing
from tests.families import ENTRIES
from tests.models.seeded import TINY, hugging_face, timm_vit

PREFIXES = (
    "_orig_mod.", "module.", "net.", "backbone.", "model.", "model.model.", "model.module.", "student.",
    "module._orig_mod.", "ema.averaged.encoder.",
)  # fmt: skip


def weights_of(entry: Entry) -> Weights:
    shapes, random = param_shapes(entry.family, entry.config), np.random.default_rng(0)
    params = {leaf: (0.5 + random.random(shape)).astype("f") for leaf, shape in shapes.items()}
    return write(entry.family.layouts[0], entry.config, unflatten(params))


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, entry in ENTRIES.items():
        monkeypatch.setitem(REGISTRY, name, entry)


@pytest.mark.parametrize("name", ["tiny", *ENTRIES])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_family_drops_every_prefix(name: str, prefix: str) -> None:
    entry = REGISTRY[name]
    weights = weights_of(entry)
    plain = detect(entry.family.layouts, entry.config, weights)
    found = detect(
        entry.family.layouts, entry.config, {prefix + key: array for key, array in weights.items()}
    )
    assert plain is not None
    assert found is not None
    assert found.prefix == prefix.replace("_orig_mod.", "")
    assert found.weights.keys() == plain.weights.keys() == weights.keys()


def test_a_dropped_prefix_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = {f"net.model.{key}": np.ascontiguousarray(array) for key, array in timm_vit(TINY).items()}
    save_file(weights | {"n_averaged": np.ones(1, np.int64)}, tmp_path / "w.safetensors")
    load_checkpoint("tiny", tmp_path)
    assert caplog.messages == [
        f"{tmp_path / 'w.safetensors'}: the prefix 'net.model.' was dropped from the keys"
    ]


def test_wrappers_inside_of_keys() -> None:
    weights = {
        key.replace("blocks.1.", "blocks.1._orig_mod."): array for key, array in timm_vit(TINY).items()
    }
    found = detect(REGISTRY["tiny"].family.layouts, TINY, weights)
    assert found is not None
    assert found.weights.keys() == timm_vit(TINY).keys()


def test_a_classifier_outside_of_the_wrapped_module() -> None:
    layouts = REGISTRY["tiny"].family.layouts
    timm = timm_vit(TINY)
    outside = {key if key.startswith("head.") else f"backbone.{key}": array for key, array in timm.items()}
    theirs = {f"model.{key}": array for key, array in hugging_face(timm, "vit.").items()}
    plain = detect(layouts, TINY, hugging_face(timm))
    for weights, want in ((outside, timm), (theirs, plain.weights if plain else {})):
        found = detect(layouts, TINY, weights)
        assert found is not None
        assert found.weights.keys() == want.keys()


def test_two_networks_in_one_file_are_refused(tmp_path: Path) -> None:
    timm = {key: np.ascontiguousarray(array) for key, array in timm_vit(TINY).items()}
    both = {f"{who}.{key}": array for who in ("student", "teacher") for key, array in timm.items()}
    save_file(both, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"has \d+ keys beside: (teacher|student)\."):
        load_checkpoint("tiny", tmp_path)


@pytest.mark.parametrize("prefix", ["", "vit.", "model.vit."])
def test_transformers_5_names_of_a_state_dict(prefix: str, tmp_path: Path) -> None:
    names = {
        "encoder.layer.": "layers.",
        ".attention.attention.query.": ".attention.q_proj.",
        ".attention.attention.key.": ".attention.k_proj.",
        ".attention.attention.value.": ".attention.v_proj.",
        ".attention.output.dense.": ".attention.o_proj.",
        ".intermediate.dense.": ".mlp.fc1.",
        ".output.dense.": ".mlp.fc2.",
    }
    four, five = hugging_face(timm_vit(TINY)), {}
    for key, array in four.items():
        for old, new in names.items():
            key = key.replace(old, new)
        outer = prefix.removesuffix("vit.") if key.startswith("classifier") else prefix
        five[outer + key] = np.ascontiguousarray(array)
    save_file(five, tmp_path / "w.safetensors")
    save_file({key: np.ascontiguousarray(a) for key, a in four.items()}, tmp_path / "four.safetensors")
    got = flatten(load_checkpoint("tiny", tmp_path / "w.safetensors").params)
    want = flatten(load_checkpoint("tiny", tmp_path / "four.safetensors").params)
    assert all(np.array_equal(got[leaf], array) for leaf, array in want.items())


def saved(folder: Path, name: str, settings: dict[str, Any] | None = None) -> Path:
    save_file(weights_of(REGISTRY[name]), folder / "model.safetensors")
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("name", ["small_resnet", "small_cifar_resnet", "small_regnet", "small_mobilenet"])
def test_cnns_take_images_of_any_size(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = {
        "input_size": [3, 22, 22],
        "crop_pct": 0.875,
        "test_input_size": [3, 28, 28],
        "test_crop_pct": 0.965,
    }
    network = load_checkpoint(name, saved(tmp_path, name, {"architecture": name, "pretrained_cfg": cfg}))
    assert (network.config.image_size, network.preprocessing.size, network.preprocessing.resize) == (
        28,
        28,
        29,
    )
    assert network.num_classes == REGISTRY[name].config.num_classes
    other = load_checkpoint(name, tmp_path, preprocessing={"size": 17})
    assert (other.preprocessing.size, other.preprocessing.resize) == (17, 17)
    assert caplog.messages == []


def test_position_embeddings_decide_the_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As of a ViT that was fine-tuned with larger images, beside the config.json of the smaller one."""
    larger = timm_vit(replace(TINY, image_size=12))
    save_file({key: np.ascontiguousarray(array) for key, array in larger.items()}, tmp_path / "w.safetensors")
    assert load_checkpoint("tiny", tmp_path).config.image_size == 12
    assert "weights are for images of 12 pixels, not 8" in caplog.text
    for cfg, resize in (({"crop_pct": 0.8}, 15), ({"input_size": [3, 12, 12], "crop_pct": 1.0}, 12)):
        settings = {"architecture": "tiny", "pretrained_cfg": cfg}
        (tmp_path / "config.json").write_text(json.dumps(settings))
        network = load_checkpoint("tiny", tmp_path)
        assert (network.config.image_size, network.preprocessing.size) == (12, 12)
        assert network.preprocessing.resize == resize
    with pytest.raises(UserError, match=r"preprocessing\.crop is 8, but .* for images of 12 pixels"):
        load_checkpoint("tiny", tmp_path, preprocessing={"size": 8})


def test_names_that_differ_in_the_size_alone_are_one_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = REGISTRY["tiny"]
    config = replace(TINY, image_size=12)
    monkeypatch.setitem(REGISTRY, "tiny_12", Entry("tiny_12", entry.family, config, entry.preprocessing))
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "tiny", "pretrained_cfg": {}}))
    save_file(
        {key: np.ascontiguousarray(a) for key, a in timm_vit(config).items()}, tmp_path / "w.safetensors"
    )
    assert load_checkpoint("tiny_12", tmp_path).config == load_checkpoint("tiny", tmp_path).config


def test_windows_that_do_not_divide_the_stated_size(tmp_path: Path) -> None:
    settings = {"pretrained_cfg": {"input_size": [3, 20, 20]}}
    with pytest.raises(UserError, match=r"image_size 20 is no multiple of 8"):
        load_checkpoint("small_swin", saved(tmp_path, "small_swin", settings))
    settings["pretrained_cfg"]["input_size"] = [3, 32, 32]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert load_checkpoint("small_swin", tmp_path).config.image_size == 32


def test_preprocessing_can_be_set(tmp_path: Path) -> None:
    changes = {"mean": (0.25,), "std": (0.1, 0.2, 0.3), "resize": None, "interpolation": "box"}
    network = load_checkpoint("small_resnet", saved(tmp_path, "small_resnet"), preprocessing=changes)
    assert network.preprocessing == Preprocessing(16, None, "box", (0.25,) * 3, (0.1, 0.2, 0.3))
    listed = load_checkpoint("small_resnet", tmp_path, preprocessing={"mean": [0.0, 0.0, 1.0]})
    assert listed.preprocessing.mean == (0.0, 0.0, 1.0)
    with pytest.raises(UserError, match=r"preprocessing has no 'means'; did you mean 'mean'\?"):
        load_checkpoint("small_resnet", tmp_path, preprocessing={"means": (0.5,)})
    with pytest.raises(UserError, match=r"crop_mode 'border' is unknown \(known: center, squash\)"):
        load_checkpoint("small_resnet", tmp_path, preprocessing={"crop_mode": "border"})
    with pytest.raises(UserError, match="must have 3 numbers, one per channel"):
        load_checkpoint("small_resnet", tmp_path, preprocessing={"mean": (0.25, 0.5)})
