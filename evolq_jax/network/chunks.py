"""Loops over chunks of images, which bound memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from evolq_jax.typing import Array


def largest_divisor(total: int, at_most: int) -> int:
    """The largest divisor of `total` up to `at_most`: a chunk size that needs no padding."""
    return next(size for size in range(min(total, max(at_most, 1)), 0, -1) if total % size == 0)


def usual_batch(total: int, usual: int) -> int:
    """The size of batches that `total` images fill: the largest divisor up to `usual`.

    If that is less than a quarter of it (a prime number of images, for example), up to four times as many
    images are one batch.
    """
    below = largest_divisor(total, usual)
    return total if 4 * below < usual and total <= 4 * usual else below


def image_chunks(images: Array, chunk: int, shards: int = 1) -> Array:
    """[B, ...] -> [chunks, size, ...], for a loop over chunks.

    If the images lie in equal shares on several devices, every chunk takes up to `chunk` images of each
    device, so the loop moves no images. This changes the order of the images. Bring everything that belongs
    to them into the same order.
    """
    size = largest_divisor(images.shape[0] // shards, chunk)
    if shards == 1:
        return images.reshape(-1, size, *images.shape[1:])
    by_device = images.reshape(shards, -1, size, *images.shape[1:])
    return by_device.swapaxes(0, 1).reshape(-1, shards * size, *images.shape[1:])


def in_chunks(fn: Callable[[Array], Any], x: Array, chunk: int) -> Any:
    """`fn` on chunks of the leading axis [B, ...], one after the other, with at most `chunk` rows at once.

    `fn` gives arrays with the same leading axis, in any tree.
    """
    size = largest_divisor(x.shape[0], chunk)
    found = jax.lax.map(fn, x.reshape(-1, size, *x.shape[1:]))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)


def split(x: Array, chunk: int) -> Array:
    """[B, ...] -> [B / chunk, chunk, ...]."""
    return x.reshape(-1, largest_divisor(x.shape[0], chunk), *x.shape[1:])


def join(x: Array, axis: int = 0) -> Array:
    """Merges an axis and the next: the inverse of `split`."""
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def in_padded_chunks(fn: Callable[[Array], Any], x: Array, chunk: int) -> Any:
    """`in_chunks` for any number of images B: the last chunk is filled up, and the filling dropped."""
    count = x.shape[0]
    if count <= chunk:
        return fn(x)
    filled = jnp.concatenate([x, jnp.repeat(x[-1:], -count % chunk, axis=0)])
    return jax.tree.map(lambda leaf: leaf[:count], in_chunks(fn, filled, chunk))
