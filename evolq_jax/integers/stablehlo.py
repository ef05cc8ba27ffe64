"""An integer model as one StableHLO artifact. Where it runs, JAX is needed, and this library is not.

`jax.export.deserialize(open(path, "rb").read()).call(images)` runs it. Beside it lies `NAME.json`, which says
what it is and holds its checksum. JAX reads artifacts for six months at least after it has written them.
"""

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.integers.describe import describe, sealed, unsealed
from evolq_jax.integers.model import IntegerModel
from evolq_jax.integers.packed import packed_forward
from evolq_jax.integers.whole_file import write_whole
from evolq_jax.network.chunks import in_padded_chunks
from evolq_jax.network.network import CHUNK
from evolq_jax.paths import user_path
from evolq_jax.typing import Array

PLATFORMS = ("cpu", "cuda", "tpu")
ARTIFACT = "artifact"  # the checksum of the artifact, in the description beside it


def write_stablehlo(model: IntegerModel, path: str | Path, platforms: Sequence[str] = PLATFORMS) -> Path:
    """Writes a function from uint8 images [b, height, width, channels] to logits [b, C], for any b.

    Its numbers are constants of the artifact: codes as a stream of bits, all others as float32. What it
    multiplies in float has the precision float32.

    Args:
      model: whose logits it gives: bit for bit where XLA compiles both alike, as jax 0.10 does on CPUs.
      path: of the artifact. The description lies at the same path with `.json` behind it.
      platforms: where it shall run, of `PLATFORMS`.

    Raises:
      UserError: flatbuffers is missing, there is no such platform, or a file cannot be written.
    """
    path = user_path(path, "file")
    need_flatbuffers()
    if unknown := set(platforms) - set(PLATFORMS):
        raise UserError(f"no platform {', '.join(sorted(unknown))}: take some of {', '.join(PLATFORMS)}")
    model = replace(model, precision="float32")
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *model.image_shape), jnp.uint8)
    exported = jax.export.export(jax.jit(packed_forward(model)), platforms=platforms)(images)
    artifact = bytes(exported.serialize())
    description = {**describe(model), "platforms": [*platforms], ARTIFACT: _checksum(artifact)}
    write_whole(path, artifact)
    write_whole(description_path(path), sealed(description).encode())
    return path


def open_stablehlo(path: str | Path) -> Callable[[Array | np.ndarray], Array]:
    """The artifact as a function from uint8 images [B, height, width, channels] to logits [B, C].

    It runs `network.CHUNK` images at once.

    Raises:
      UserError: there is no such file, it or its description was changed, or this device is of another kind
        than it was written for.
    """
    path = user_path(path, "file")
    need_flatbuffers()
    _, artifact = read_stablehlo(path)
    exported = jax.export.deserialize(bytearray(artifact))
    kind = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if kind not in exported.platforms:
        raise UserError(
            f"'{path}' was written for {', '.join(exported.platforms)}, and this device is of the kind "
            f"{kind}: export the network for it"
        )

    @jax.jit
    def run(images: Array) -> Array:
        return in_padded_chunks(exported.call, images, CHUNK)

    shape = exported.in_avals[0].shape[1:]

    def logits(images: Array | np.ndarray) -> Array:
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise UserError(
                f"'{path}' takes uint8 images [B, {', '.join(map(str, shape))}], not {images.dtype} "
                f"{[*images.shape]}"
            )
        return run(jnp.asarray(images))

    return logits


def read_stablehlo(path: Path) -> tuple[dict[str, Any], bytes]:
    """What is said of the artifact beside it, and the artifact.

    Raises:
      UserError: one is missing, or was changed.
    """
    beside = description_path(path)
    if not beside.is_file():
        raise UserError(f"'{beside}' is missing, which describes '{path}': `evolq export` writes both")
    found = unsealed(_read(beside).decode(errors="replace"), beside)
    if ARTIFACT not in found:
        raise UserError(f"'{beside}' describes another kind of file: export the network again")
    artifact = _read(path)
    if _checksum(artifact) != found[ARTIFACT]:
        raise UserError(f"'{path}' was changed or truncated: export the network again")
    return found, artifact


def description_path(path: Path) -> Path:
    """Where the description of an artifact lies."""
    return path.with_name(f"{path.name}.json")


def _checksum(artifact: bytes) -> str:
    return hashlib.sha256(artifact).hexdigest()[:32]


def need_flatbuffers() -> None:
    """Refuses where flatbuffers is not installed.

    Raises:
      UserError: it is not.
    """
    try:
        importlib.import_module("flatbuffers")
    except ImportError as error:
        raise UserError(
            "StableHLO artifacts need the package flatbuffers: pip install 'evolq_jax[stablehlo]'"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from error
