import json
import struct
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import evolq_jax
from evolq_jax.errors import UserError
from evolq_jax.integers.build import integer_model
from evolq_jax.integers.describe import KEY, describe, fingerprint
from evolq_jax.integers.files import read_description, read_safetensors, write_safetensors
from evolq_jax.integers.model import About, IntegerModel
from evolq_jax.models.registry import get_entry
from evolq_jax.network.network import Network
from evolq_jax.quant.qparams import blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.trees import flatten
from evolq_jax.typing import Preprocessing
from tests.tiny import Tiny


@pytest.mark.parametrize("kind", ["deployed", "mixed"])
def test_what_is_written_is_read(
    kind: str, request: pytest.FixtureRequest, tiny: Tiny, tmp_path: Path
) -> None:
    about = About(("a", "b"), {"integers": {"top1": 0.5}}, 12, {"run": "r"})
    model = integer_model(request.getfixturevalue(kind), about)
    path = write_safetensors(model, tmp_path / "q.safetensors")
    again = evolq_jax.load(path, tiny.parts)
    assert isinstance(again, IntegerModel)
    assert describe(again) == {**describe(model), "config": None}  # sizes are known of the registry's alone
    assert again.specs == model.specs
    np.testing.assert_array_equal(again(tiny.pixels), model(tiny.pixels))
    assert vars(again.about) == vars(about)
    assert [file.name for file in tmp_path.iterdir()] == ["q.safetensors"]


def test_codes_take_their_bits(mixed: QuantizedNetwork, tmp_path: Path) -> None:
    tensors = load_file(write_safetensors(integer_model(mixed), tmp_path / "q.safetensors"))
    stream = tensors["blocks/attn/qkv/weight.codes"]
    assert stream.dtype == np.uint8
    assert len(stream) == (2 + 5 + 8) * 32 * 96 // 8
    assert len(tensors["blocks/mlp/fc1/weight.codes"]) == 3 * 3 * 32 * 64 // 8


@pytest.fixture
def file(model: IntegerModel, tmp_path: Path) -> Path:
    return write_safetensors(model, tmp_path / "q.safetensors")


def edit(path: Path, name: str | None = None, metadata: str | None = None) -> None:
    """Adds one to the first number of a tensor, or replaces the description."""
    tensors = load_file(path)
    size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    said = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]
    if name is not None:
        tensors[name].reshape(-1)[0] += 1
    if metadata is not None:
        said[KEY] = metadata
    save_file(tensors, path, said)


@pytest.mark.parametrize("name", ["head/weight.codes", "blocks/norm1.zero_point", "norm.scale", "pos_embed"])
def test_an_edited_tensor_is_refused_by_name(file: Path, name: str, tiny: Tiny) -> None:
    edit(file, name)
    with pytest.raises(UserError, match=f"the tensor '{name}' was changed"):
        read_safetensors(file, tiny.parts)


def test_an_edited_description_is_refused(file: Path, tiny: Tiny) -> None:
    edit(file, metadata=json.dumps({**json.loads(_said(file)), "name": "other"}))
    for read in (read_description, lambda path: read_safetensors(path, tiny.parts)):
        with pytest.raises(UserError, match="its description was edited or damaged"):
            read(file)


def _said(path: Path) -> str:
    size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    return json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"][KEY]


@pytest.mark.parametrize("keep", [0, 4, 300, -1])
def test_a_truncated_file_is_refused(file: Path, keep: int, tiny: Tiny) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"q.safetensors' is truncated"):
        read_safetensors(file, tiny.parts)


def test_other_files_are_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(UserError, match="no file at"):
        read_description(tmp_path / "none")
    save_file({"x": np.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no integers of evolq_jax"):
        evolq_jax.load(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="the network 'tiny', which is not in the registry"):
        evolq_jax.load(file)


def test_the_fingerprint_is_of_the_numbers(model: IntegerModel) -> None:
    assert fingerprint(replace(model, about=About(num_images=3))) == fingerprint(model)
    numbers = model.qparams["norm"]
    moved = {**model.qparams, "norm": numbers._replace(scale=numbers.scale * np.float32(1 + 1.2e-7))}
    assert fingerprint(replace(model, qparams=moved)) != fingerprint(model)


@pytest.mark.parametrize(
    ("bits", "edges", "ratio"), [(4, None, 6.8), (3, None, 8.5), (4, 8, 6.7), (3, 8, 8.3), (8, 8, 3.7)]
)
def test_files_are_as_small_as_their_bits(bits: int, edges: int | None, ratio: float, tmp_path: Path) -> None:
    entry = get_entry("vit_tiny_patch16_224")
    shapes = jax.eval_shape(lambda key: entry.family.init(key, entry.config), jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    network = Network(entry.family.make(entry.config), params, Preprocessing(), entry.name, entry.config)
    specs, widths = resolve(QuantConfig("deploy", weight_bits=bits, edge_weight_bits=edges), network.sites)
    blank = QuantizedNetwork(network, params, blank_qparams(specs, widths, network.sites), specs)
    file = write_safetensors(integer_model(blank), tmp_path / "q.safetensors")
    floats = sum(leaf.nbytes for leaf in flatten(params).values())
    assert floats / file.stat().st_size >= ratio
