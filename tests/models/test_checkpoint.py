"""Files of every layout give one network; what can be wrong with a file is said in one line."""

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from evolq_jax.errors import UserError
from evolq_jax.models.checkpoint import load_checkpoint, save_params
from evolq_jax.models.registry import get_entry, param_shapes
from evolq_jax.trees import flatten, unflatten
from tests.models.recipe import Arrays, images
from tests.models.seeded import TINY, augreg, hugging_face, logits, timm_vit

X = images(8, 3)


def arrays(**sizes: int) -> Arrays:
    return timm_vit(replace(TINY, **sizes))


def saved(weights: Arrays, path: Path) -> Path:
    weights = {key: np.ascontiguousarray(array) for key, array in weights.items()}
    if path.suffix == ".npz":
        np.savez(path, allow_pickle=False, **weights)  # pyright: ignore[reportArgumentType]
    else:
        save_file(weights, path)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return saved(arrays(), tmp_path / "plain.safetensors")


def prefixed(prefix: str) -> Callable[[Arrays], Arrays]:
    return lambda timm: {prefix + key: array for key, array in timm.items()}


LAYOUTS: dict[str, tuple[str, Callable[[Arrays], Arrays]]] = {
    "module prefix": ("a.safetensors", prefixed("module.")),
    "both prefixes": ("a.safetensors", prefixed("module.model.")),
    "transformers": ("a.safetensors", lambda timm: hugging_face(timm, "vit.")),
    "transformers, bare": ("a.safetensors", hugging_face),
    "transformers, pooler": (
        "a.safetensors",
        lambda timm: hugging_face(timm, "vit.") | {"vit.pooler.dense.bias": np.ones(12, np.float32)},
    ),
    "augreg": ("a.npz", lambda timm: augreg(timm, 3)),
    "augreg, older": ("a.npz", lambda timm: augreg(timm, 3, "opt/target/")),
    "augreg, renumbered": ("a.npz", lambda timm: augreg(timm, 3, "params/", (0, 1, 0))),
    "timm names in npz": ("a.npz", prefixed("")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_network(layout: str, plain: Path, tmp_path: Path) -> None:
    name, convert = LAYOUTS[layout]
    model = load_checkpoint("tiny", saved(convert(arrays()), tmp_path / name))
    got, want = flatten(model.params), flatten(load_checkpoint("tiny", plain).params)
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[leaf], array) for leaf, array in want.items())


@pytest.mark.parametrize("prefix", ["", "deit.", "model.deit."])
def test_distilled_deit_of_transformers(prefix: str, tmp_path: Path) -> None:
    timm = arrays(distilled=True)
    a = load_checkpoint("tiny_distilled", saved(timm, tmp_path / "a.safetensors"))
    theirs = hugging_face(timm, prefix.removeprefix("model."))
    b = load_checkpoint("tiny_distilled", saved(theirs, tmp_path / "b.safetensors"))
    np.testing.assert_array_equal(logits(a, X), logits(b, X))


def test_parameters_are_stacked_float32(plain: Path) -> None:
    model = load_checkpoint("tiny", plain)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {np.dtype("float32")}
    timm = arrays()
    got = np.asarray(model.params["blocks"]["mlp"]["fc1"]["weight"])
    np.testing.assert_array_equal(got[1], timm["blocks.1.mlp.fc1.weight"].T)
    assert (model.name, model.parts.segments[0].length) == ("tiny", 2)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_is_widened(dtype: Any, plain: Path, tmp_path: Path) -> None:
    half = saved({k: v.astype(dtype) for k, v in arrays().items()}, tmp_path / "half.safetensors")
    np.testing.assert_allclose(
        logits(load_checkpoint("tiny", half), X), logits(load_checkpoint("tiny", plain), X), atol=0.02
    )


def test_another_number_of_classes_is_the_files(tmp_path: Path) -> None:
    for name, convert in {"a.safetensors": hugging_face, "a.npz": lambda timm: augreg(timm, 3)}.items():
        model = load_checkpoint("tiny", saved(convert(arrays(num_classes=11)), tmp_path / name))
        assert model.config.num_classes == 11
        assert logits(model, X).shape == (2, 11)


def test_a_folder_stands_for_its_weights(tmp_path: Path) -> None:
    saved(arrays(), tmp_path / "model.safetensors")
    saved(arrays(num_classes=2), tmp_path / "other.safetensors")
    assert load_checkpoint("tiny", tmp_path).config.num_classes == 5
    (tmp_path / "model.safetensors").rename(tmp_path / "third.safetensors")
    with pytest.raises(UserError, match=r"several weight files \(other.safetensors, third.safetensors\)"):
        load_checkpoint("tiny", tmp_path)


def test_an_empty_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \.safetensors or \.npz"):
        load_checkpoint("tiny", tmp_path)
    with pytest.raises(UserError, match=r"w\.npz: no such file"):
        load_checkpoint("tiny", tmp_path / "w.npz")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.99])
def test_truncated_files(suffix: str, kept: float, tmp_path: Path) -> None:
    path = saved(arrays(), tmp_path / f"a{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    with pytest.raises(UserError, match=f"a{suffix}: damaged, truncated") as caught:
        load_checkpoint("tiny", path)
    assert "\n" not in str(caught.value)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match="are not read"):
        load_checkpoint("tiny", tmp_path / "a.pth")
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="damaged, truncated"):
        load_checkpoint("tiny", tmp_path / "a.npz")


def test_an_unknown_layout_is_described(tmp_path: Path) -> None:
    path = saved({"conv1.weight": np.ones((2, 2), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(
        UserError, match=r"no layout that tiny is read from \(timm.*1 arrays \(conv1\.weight\)"
    ):
        load_checkpoint("tiny", path)


def test_weights_of_another_model_name_it(tmp_path: Path, plain: Path) -> None:
    with pytest.raises(
        UserError, match=r"has shape \[1, 1, 12\] where \[1, 1, 64\] is needed.*it fits tiny: give"
    ):
        load_checkpoint("vit_digits", plain)
    deeper = saved(arrays(depth=3), tmp_path / "deeper.safetensors")
    with pytest.raises(UserError, match=r"keys beside: .*blocks\.2\..*no model of the registry fits"):
        load_checkpoint("tiny", deeper)
    distilled = saved(augreg(arrays(), 3), tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"lacks 3 keys: dist_token.*it fits tiny: give"):
        load_checkpoint("tiny_distilled", distilled)


def test_missing_and_extra_keys_are_listed(tmp_path: Path) -> None:
    weights = arrays()
    del weights["blocks.1.norm2.bias"], weights["head.weight"]
    weights |= {f"head.more{i}": np.ones(1, np.float32) for i in range(5)}
    with pytest.raises(UserError) as caught:
        load_checkpoint("tiny", saved(weights, tmp_path / "a.safetensors"))
    message = str(caught.value)
    assert "lacks 2 keys: blocks.1.norm2.bias, head.weight" in message
    assert "5 keys beside: head.more0, head.more1, head.more2 and 2 more" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_name_the_key(value: float, tmp_path: Path) -> None:
    weights = arrays()
    weights["blocks.1.mlp.fc2.bias"][3] = value
    with pytest.raises(UserError, match=r"a\.safetensors: blocks\.1\.mlp\.fc2\.bias holds NaN or infinite"):
        load_checkpoint("tiny", saved(weights, tmp_path / "a.safetensors"))


def test_integers_are_not_weights(tmp_path: Path) -> None:
    weights = arrays() | {"head.bias": np.zeros(5, np.int8)}
    with pytest.raises(UserError, match=r"head\.bias is of type int8"):
        load_checkpoint("tiny", saved(weights, tmp_path / "a.safetensors"))


@pytest.mark.parametrize("name", ["tiny", "tiny_distilled"])
def test_saved_parameters_load_again(name: str, tmp_path: Path) -> None:
    entry = get_entry(name)
    random = np.random.default_rng(0)
    shapes = param_shapes(entry.family, entry.config)
    params = unflatten({leaf: random.normal(size=shape).astype("f") for leaf, shape in shapes.items()})
    save_params(tmp_path / "w.safetensors", params, {"model": name, "top1": "0.9"})
    back = flatten(load_checkpoint(name, tmp_path / "w.safetensors").params)
    assert all(np.array_equal(back[leaf], array) for leaf, array in flatten(params).items())
    with safe_open(tmp_path / "w.safetensors", "np") as file:
        assert file.metadata() == {"model": name, "top1": "0.9"}
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_others_may_read_saved_weights(plain: Path, tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        save_params(tmp_path / "w.safetensors", load_checkpoint("tiny", plain).params, {"model": "tiny"})
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "w.safetensors").stat().st_mode) == 0o640


def test_saved_names_and_forms_are_timms(plain: Path, tmp_path: Path) -> None:
    save_params(tmp_path / "w.safetensors", load_checkpoint("tiny", plain).params, {"model": "tiny"})
    written = load_file(tmp_path / "w.safetensors")
    timm = arrays()
    assert written.keys() == timm.keys()
    assert all(np.array_equal(written[key], array) for key, array in timm.items())


def test_saving_refuses_what_could_not_be_loaded(plain: Path, tmp_path: Path) -> None:
    params, path = load_checkpoint("tiny", plain).params, tmp_path / "w.safetensors"
    with pytest.raises(UserError, match="name of the model under 'model'"):
        save_params(path, params, {})
    with pytest.raises(UserError, match=r"not parameters of tiny_distilled: dist_token, head_dist/bias"):
        save_params(path, params, {"model": "tiny_distilled"})
    with pytest.raises(UserError, match=r"not parameters of vit_digits: .* and \d+ more missing"):
        save_params(path, params, {"model": "vit_digits"})
    with pytest.raises(UserError, match="not parameters of tiny: extra missing, extra or misshapen"):
        save_params(path, params | {"extra": np.ones(2)}, {"model": "tiny"})
    with pytest.raises(UserError, match="cannot be written"):
        save_params(tmp_path / "absent" / "w.safetensors", params, {"model": "tiny"})
    assert not path.exists()


def test_a_failed_save_leaves_the_old_file(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, path = load_checkpoint("tiny", plain).params, tmp_path / "w.safetensors"
    path.write_text("old")
    monkeypatch.setattr(
        "evolq_jax.models.checkpoint.load_file", lambda _: {k: v + 1 for k, v in arrays().items()}
    )
    with pytest.raises(UserError, match="does not read back"):
        save_params(path, params, {"model": "tiny"})
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain.safetensors", "w.safetensors"]


# transformers 5.24: DeiTForImageClassification with these weights, image_size=8, patch_size=4,
# hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, layer_norm_eps=1e-6
DEIT_WITH_ONE_HEAD = [
    [-1.649823, -1.414823, -0.072950, 0.957288, 1.421752],
    [1.973439, 1.552762, 0.214836, -0.209027, -1.110026],
]


@pytest.mark.parametrize("name", ["tiny", "tiny_distilled"])
def test_deit_of_transformers_with_one_head(name: str, tmp_path: Path) -> None:
    theirs = hugging_face(arrays(distilled=True), "deit.")
    one_head = {
        key.replace("cls_classifier", "classifier"): array
        for key, array in theirs.items()
        if not key.startswith("distillation_classifier")
    }
    model = load_checkpoint(name, saved(one_head, tmp_path / "a.safetensors"))
    np.testing.assert_allclose(logits(model, X), DEIT_WITH_ONE_HEAD, atol=1e-5)


def test_bfloat16_of_flax(plain: Path, tmp_path: Path) -> None:
    flax = {key: array.astype(jnp.bfloat16) for key, array in augreg(arrays(), 3).items()}
    half = load_checkpoint("tiny", saved(flax, tmp_path / "half.npz"))
    np.testing.assert_allclose(logits(half, X), logits(load_checkpoint("tiny", plain), X), atol=0.02)
