"""Runs ONNX files with onnxruntime."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.integers.onnx.graph import INPUT
from evolq_jax.integers.onnx.read import read_onnx
from evolq_jax.network.network import CHUNK
from evolq_jax.quantized.description import structured
from evolq_jax.typing import Preprocessing


@dataclass(frozen=True)
class OnnxNetwork:
    """A file that onnxruntime runs: a function from images to logits.

    Attributes:
      session: onnxruntime's.
      description: what the file says of itself.
      preprocessing: of its images.
    """

    session: Any
    description: dict[str, Any]
    preprocessing: Preprocessing

    def __call__(self, images: Any) -> np.ndarray:
        """Logits [B, C] of uint8 pixels [B, height, width, channels], or of floats that are normalised.

        Raises:
          UserError: the images are of another shape.
        """
        images, size = np.asarray(images), self.preprocessing.size
        wanted = (size, size, len(self.preprocessing.mean))
        if images.ndim != 4 or images.shape[1:] != wanted:
            raise UserError(
                f"the network reads images [B, {size}, {size}, {wanted[2]}], not {[*images.shape]}"
            )
        chunks = np.split(images, range(CHUNK, len(images), CHUNK))
        return np.concatenate([self._run(chunk) for chunk in chunks])

    def _run(self, images: np.ndarray) -> np.ndarray:
        if images.dtype == np.uint8:
            mean, std = (
                np.asarray(each, np.float32) for each in (self.preprocessing.mean, self.preprocessing.std)
            )
            images = (images.astype(np.float32) / np.float32(255) - mean) / std
        pixel_values = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return self.session.run(None, {INPUT: pixel_values})[0]


def open_onnx(path: str | Path, *, threads: int | None = None) -> OnnxNetwork:
    """Opens a file that `write_onnx` wrote, to run on this machine's CPU.

    Args:
      path: of the file.
      threads: that a product may use; None: as onnxruntime chooses.

    Raises:
      UserError: as `read_onnx`; or onnxruntime is not installed or refuses the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("this needs onnxruntime: pip install 'evolq_jax[onnx]'") from error
    description, proto = read_onnx(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        content = proto.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own have no common class
        raise UserError(f"onnxruntime cannot run '{path}': {str(error).splitlines()[0]}") from error
    preprocessing = structured(description["preprocessing"], Preprocessing, Path(path))
    return OnnxNetwork(session, description, preprocessing)
