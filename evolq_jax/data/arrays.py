"""Image sets that are arrays: `.npz` files."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from evolq_jax.data.preprocess import fit_array
from evolq_jax.data.source import Source, listed_labels
from evolq_jax.errors import UserError, suggestion
from evolq_jax.paths import open_regular
from evolq_jax.typing import Preprocessing

_READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,  # what a header claims
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def npz_source(path: Path, preprocessing: Preprocessing) -> Source:
    """Reads an `.npz` with `image`, uint8 [B, h, w, K] (K = 3 or 1), and optionally `label`, integers [B].

    Images with h = w = `preprocessing.size` are used as they are, with or without `resize`. Others go
    through `fit_array`.

    Raises:
        UserError: if the file is no `.npz`, lacks `image`, or an array has the wrong type or shape.
    """
    pixels, labels = _read_npz(path)
    stat = path.stat()
    identity: list[str | int] = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
    return array_source(
        str(path),
        pixels,
        labels,
        preprocessing,
        title=path.name,
        identity=identity,
        positions=np.arange(len(pixels)),
    )


def array_source(
    where: str,
    pixels: np.ndarray,
    labels: np.ndarray | None,
    preprocessing: Preprocessing,
    *,
    title: str,
    identity: list[str | int],
    positions: np.ndarray,
) -> Source:
    """A source over images in memory. Images of another size are brought to `preprocessing.size`.

    Args:
        where: the set's name in messages.
        pixels: uint8 [B, h, w, K].
        labels: int32 [B] or None.
        preprocessing: the wanted size and interpolation.
        title: image i is called `title[positions[i]]`.
        identity: values that change when the set changes; part of the cache key.
        positions: [B], each image's position in the set from which it was taken.
    """
    names = tuple(f"{title}[{position}]" for position in positions)
    size = preprocessing.size
    fits = pixels.shape[1:3] == (size, size)

    def decode(index: int) -> np.ndarray:
        return fit_array(pixels[index], preprocessing, names[index])

    return Source(
        where=where,
        names=names,
        labels=None if labels is None else listed_labels(labels),
        max_label=-1 if labels is None else int(labels.max()),
        shape=(size, size, pixels.shape[3]),
        decode=decode,
        stamp=lambda index: [*identity, int(positions[index])],
        pixels=pixels if fits else None,
    )


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with open_regular(path) as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise UserError(
                    f"{path} is a single array, not an .npz: save it with numpy.savez(path, image=...)"
                )
            if "image" not in archive.files:
                raise UserError(
                    f"{path} has no array 'image' (it has: {', '.join(archive.files) or 'nothing'})"
                    f"{suggestion('image', archive.files)}"
                )
            pixels = _member(archive, "image", path)
            labels = _member(archive, "label", path) if "label" in archive.files else None
    except _READ_ERRORS as error:
        raise UserError(f"cannot read {path} as .npz: {' '.join(str(error).split())}") from error
    _check_arrays(path, pixels, labels)
    return pixels, None if labels is None else labels.astype(np.int32)


def _member(archive: Any, name: str, path: Path) -> np.ndarray:
    found = archive[name]
    if not isinstance(found, np.ndarray):  # the bytes of a member that is no array
        raise UserError(f"{path}: its '{name}' is no array: save it with numpy.savez(path, image=...)")
    return found


def _check_arrays(path: Path, pixels: np.ndarray, labels: np.ndarray | None) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or 0 in pixels.shape:
        raise UserError(
            f"{path}: 'image' must be uint8 [B, height, width, 3 or 1], "
            f"got {pixels.dtype} {list(pixels.shape)}"
        )
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != pixels.shape[:1]):
        raise UserError(
            f"{path}: 'label' must be integers [{len(pixels)}], one per image, "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    if labels is not None and not (labels.min() >= 0 and labels.max() <= np.iinfo(np.int32).max):
        raise UserError(
            f"{path}: 'label' must be class indices from 0 on, but goes from {labels.min()} to "
            f"{labels.max()}; leave it out if there are no labels"
        )
