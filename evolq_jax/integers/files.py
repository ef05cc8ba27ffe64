"""`quantized.safetensors`: packed codes, scales and zero points in one file (docs/file-formats.md)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from evolq_jax.errors import UserError
from evolq_jax.integers.bitstream import num_bytes, pack, unpack
from evolq_jax.integers.describe import (
    KEY,
    about_of,
    arrays_of,
    checksum,
    describe,
    sealed,
    specs_of,
    unsealed,
)
from evolq_jax.integers.model import IntegerModel, WeightCodes
from evolq_jax.integers.whole_file import write_whole
from evolq_jax.network.parts import ModelParts
from evolq_jax.paths import user_path
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quantized.description import find_network
from evolq_jax.trees import unflatten


def write_safetensors(model: IntegerModel, path: str | Path) -> Path:
    """Writes the model into one file, in one step.

    Raises:
      UserError: the file cannot be written.
    """
    path = user_path(path, "file")
    tensors = {name: _contiguous(array) for name, array in arrays_of(model).items()}
    for name, weight in model.weights.items():
        tensors[f"{name}.codes"] = pack_blocks(weight)
    checksums = {name: checksum(name, tensor) for name, tensor in tensors.items()}
    metadata = {"format": "np", KEY: sealed({**describe(model), "checksums": checksums})}
    write_whole(path, save(tensors, metadata))
    return path


def read_safetensors(path: str | Path, parts: ModelParts | None = None) -> IntegerModel:
    """Reads what `write_safetensors` wrote.

    Args:
      path: the file.
      parts: the functions of a network of your own. Those of the registry are found by name.

    Raises:
      UserError: there is no such file, it was truncated or edited, or it needs `parts` that are not given.
    """
    path = user_path(path, "file")
    description, tensors = _read(path)
    found = find_network(description, parts, path)
    leaves: dict[str, Any] = {}
    qparams: dict[str, SiteQParams] = {}
    taken: set[str] = set()

    def take(name: str) -> np.ndarray:
        if name not in tensors:
            raise UserError(f"'{path}' lacks the tensor '{name}': export the network again")
        taken.add(name)
        return tensors[name]

    for name, weight in description["weights"].items():
        stream, scale = take(f"{name}.codes"), take(f"{name}.scale")
        zeros = np.zeros_like(scale) if weight["signed"] else take(f"{name}.zero_point").astype(np.float32)
        leaves[name] = unpack_blocks(stream, weight["bits"], tuple(weight["shape"]), signed=weight["signed"])
        qparams[name] = _numbers(scale, zeros, weight["bits"])
    for name, site in description["activations"].items():
        qparams[name] = _numbers(take(f"{name}.scale"), take(f"{name}.zero_point"), site["bits"])
    leaves |= {name: tensor for name, tensor in tensors.items() if name not in taken}
    return IntegerModel(
        found.parts,
        unflatten(jax.device_put(leaves)),
        qparams,
        specs_of(description, path),
        found.preprocessing,
        found.name,
        found.config,
        found.precision,
        about_of(description, path),
    )


def read_description(path: Path) -> dict[str, Any]:
    """What the file says of itself.

    Raises:
      UserError: there is no such file, it is none of ours, or it was truncated or edited.
    """
    return _read(path)[0]


def pack_blocks(weight: WeightCodes) -> np.ndarray:
    """The codes as one stream, uint8. Each block's codes begin with a byte of their own."""
    blocks = weight.codes.reshape(len(weight.bits), -1)
    return np.concatenate(
        [pack(codes, bits) for codes, bits in zip(blocks, weight.bits.tolist(), strict=True)]
    )


def unpack_blocks(stream: np.ndarray, bits: list[int], shape: tuple[int, ...], *, signed: bool) -> np.ndarray:
    """The inverse of `pack_blocks`."""
    size, start, blocks = int(np.prod(shape)) // len(bits), 0, []
    for width in bits:
        stop = start + num_bytes(size, width)
        blocks.append(unpack(stream[start:stop], width, (size,), signed=signed))
        start = stop
    return np.stack(blocks).reshape(shape)


def _numbers(scale: np.ndarray, zero_point: np.ndarray, bits: list[int]) -> SiteQParams:
    """A site's, with bits of size 1 on every axis but that of blocks."""
    shape = (len(bits), *[1] * (scale.ndim - 1)) if scale.ndim else ()
    widths = np.asarray(bits, np.float32).reshape(shape)
    return jax.tree.map(jax.device_put, SiteQParams(scale, zero_point, widths))  # type: ignore[arg-type]


def _contiguous(array: np.ndarray) -> np.ndarray:
    """`np.ascontiguousarray`, which would give numbers an axis."""
    return array if array.flags.c_contiguous else array.copy("C")


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"no file at '{path}'")
    try:
        return safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        raise UserError(f"'{path}' is truncated or no safetensors file ({error}): export it again") from error


def _description(path: Path, file: Any) -> dict[str, Any]:
    metadata: Mapping[str, str] = file.metadata() or {}
    if KEY not in metadata:
        raise UserError(f"'{path}' holds no integers of evolq_jax: `evolq export RUN` writes such files")
    return unsealed(metadata[KEY], path)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the tensors, each checked by its checksum."""
    with _opened(path) as file:
        description = _description(path, file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, said in description["checksums"].items():
        if name not in tensors or checksum(name, tensors[name]) != said:
            raise UserError(f"'{path}': the tensor '{name}' was changed or lost: export the network again")
    if unknown := set(tensors) - set(description["checksums"]):
        raise UserError(f"'{path}': nobody knows the tensors {', '.join(sorted(unknown))}: export it again")
    return description, tensors
