"""Exported files of every format: which one a file has, what it says of itself, and its runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.integers.describe import about_of
from evolq_jax.integers.files import read_description, read_safetensors
from evolq_jax.integers.model import About
from evolq_jax.paths import user_path
from evolq_jax.quantized.description import structured
from evolq_jax.typing import Array, Preprocessing, Progress, no_progress

Format = Literal["safetensors", "onnx", "stablehlo"]
NAMES: dict[Format, str] = {
    "safetensors": "quantized.safetensors",
    "onnx": "quantized.onnx",
    "stablehlo": "quantized.stablehlo",
}
RUNTIMES: dict[Format, str] = {"safetensors": "evolq_jax", "onnx": "onnxruntime", "stablehlo": "JAX"}


class Exported(NamedTuple):
    """A file that is opened.

    Attributes:
      path: the file.
      format: of the file.
      description: what it says of itself (`describe.describe`).
      run: uint8 images [B, height, width, channels] -> logits [B, C], by the file's own runtime.
    """

    path: Path
    format: Format
    description: dict[str, Any]
    run: Callable[[np.ndarray], np.ndarray]

    @property
    def preprocessing(self) -> Preprocessing:
        """How it wants its images."""
        return structured(self.description["preprocessing"], Preprocessing, self.path)

    @property
    def about(self) -> About:
        """Class names, scores, provenance."""
        return about_of(self.description, self.path)


def format_of(path: Path) -> Format:
    """The format, by the ending.

    Raises:
      UserError: there is no such file, or its ending is another.
    """
    found = path.suffix.removeprefix(".")
    if path.is_dir():
        raise UserError(f"'{path}' is a folder: name the file in it, such as {NAMES['onnx']}")
    if not path.is_file():
        raise UserError(f"no file at '{path}'")
    for known in get_args(Format):
        if found == known:
            return known
    endings = ", ".join(f".{known}" for known in get_args(Format))
    raise UserError(f"'{path}' is no exported network: such files end in {endings}")


def describe_file(path: str | Path) -> dict[str, Any]:
    """What a file says of itself. All of it is checked by its checksums.

    Raises:
      UserError: there is no such file, it is none of ours, or it was truncated or edited.
    """
    path = user_path(path, "file")
    match format_of(path):
        case "safetensors":
            return read_description(path)
        case "onnx":
            from evolq_jax.integers.onnx.read import read_onnx

            return read_onnx(path)[0]
        case "stablehlo":
            from evolq_jax.integers.stablehlo import read_stablehlo

            return read_stablehlo(path)[0]


def open_exported(path: str | Path) -> Exported:
    """A file with its runtime.

    Raises:
      UserError: as `describe_file`; or its runtime is not installed.
    """
    path = user_path(path, "file")
    match format_of(path):
        case "safetensors":
            return Exported(path, "safetensors", read_description(path), as_numpy(read_safetensors(path)))
        case "onnx":
            from evolq_jax.integers.onnx.session import open_onnx

            network = open_onnx(path)
            return Exported(path, "onnx", network.description, network)
        case "stablehlo":
            from evolq_jax.integers.stablehlo import open_stablehlo, read_stablehlo

            return Exported(path, "stablehlo", read_stablehlo(path)[0], as_numpy(open_stablehlo(path)))


def as_numpy(run: Callable[[np.ndarray], Array]) -> Callable[[np.ndarray], np.ndarray]:
    """What JAX runs as other runtimes are: from arrays of numpy to arrays of numpy."""
    return lambda pixels: np.asarray(run(pixels))


def in_batches(
    run: Callable[[np.ndarray], np.ndarray],
    pixels: np.ndarray,
    batch_size: int,
    progress: Progress = no_progress,
) -> np.ndarray:
    """Logits [B, C] of uint8 images [B, height, width, channels].

    The last batch is filled up, so that runtimes that compile see one shape.
    """
    found: list[np.ndarray] = []
    for start in range(0, len(pixels), batch_size):
        batch = np.asarray(pixels[start : start + batch_size])
        filled = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch), axis=0)])
        found.append(run(filled if len(pixels) > batch_size else batch)[: len(batch)])
        progress(start + len(batch), len(pixels))
    return np.concatenate(found)
