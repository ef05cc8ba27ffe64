"""What is done with loaded images: subsets, padded batches, a fingerprint."""

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np

from evolq_jax import hosts
from evolq_jax.errors import UserError
from evolq_jax.typing import Images

_CHUNK_IMAGES = 256


def subset(images: Images, indices: Sequence[int] | np.ndarray) -> Images:
    """The images at `indices` [b], in that order, in memory.

    Raises:
        UserError: if an index is not in 0..B-1.
    """
    rows = np.asarray(indices, dtype=np.int64)
    outside = rows[(rows < 0) | (rows >= len(images.names))]
    if outside.size:
        raise UserError(f"image index {outside[0]} is outside the set of {len(images.names)} images")
    return images._replace(
        pixels=np.asarray(images.pixels[rows]),
        labels=None if images.labels is None else images.labels[rows],
        names=tuple(images.names[row] for row in rows),
    )


def batches(pixels: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cuts pixels into batches of one size, so that one compiled program serves all.

    The last batch is filled up with copies of its last image (real pixels: ranges over a batch stay true).

    Args:
        pixels: [B, h, w, K], possibly memory-mapped.
        batch_size: images per batch.

    Yields:
        (pixels [batch_size, h, w, K], mask bool [batch_size], False where filled up).

    Raises:
        UserError: if `batch_size` is not positive.
    """
    if batch_size <= 0:
        raise UserError(f"batch_size must be positive, got {batch_size}")
    return _batches(pixels, batch_size)


def _batches(pixels: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    offsets = np.arange(batch_size)
    for start in range(0, len(pixels), batch_size):
        rows = np.minimum(start + offsets, len(pixels) - 1)
        yield np.asarray(pixels[rows]), start + offsets < len(pixels)


def fingerprint(images: Images) -> str:
    """16 hexadecimal digits of a SHA-256 over names, shape and every pixel; labels do not count.

    Where several processes hold shares of the images, all get what one would that holds all; the pixels pass
    by every process once, some at a time.
    """
    total, (count, *shape) = len(images.names), images.pixels.shape
    digest = hashlib.sha256(json.dumps([images.names, [total, *shape]]).encode())
    counts = hosts.gather(np.asarray([count]))
    shared = counts.sum() == total
    for process, rows in enumerate(counts if shared else [count]):
        for start in range(0, int(rows), _CHUNK_IMAGES):

            def chunk(start: int = start) -> memoryview:
                return np.ascontiguousarray(images.pixels[start : start + _CHUNK_IMAGES]).data

            digest.update(hosts.from_process(process, chunk) if shared else chunk())
    return digest.hexdigest()[:16]
