"""Decodes many images in threads. Pillow releases the interpreter lock while it decodes and resizes."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from evolq_jax.data.source import Source, Unreadable
from evolq_jax.data.threads import in_order
from evolq_jax.errors import UserError
from evolq_jax.typing import Progress

OnCorrupt = Literal["error", "skip"]

# At most this many decoded images wait for their consumer, so a slow disk does not fill the memory.
_IMAGES_AHEAD = 256


class Decoded(NamedTuple):
    """Decoded images and which ones are missing."""

    pixels: np.ndarray  # uint8 [B - len(skipped), h, w, K], in the order asked for
    skipped: tuple[int, ...]  # positions, among the B asked for, of those that could not be read


def decode_stream(
    source: Source, indices: np.ndarray, on_corrupt: OnCorrupt, progress: Progress | None
) -> Iterator[np.ndarray | None]:
    """Yields the images `indices` [B] of `source`, in this order. A skipped image gives None.

    Raises:
        UserError: an image is unreadable and `on_corrupt` is "error", or no image is readable.
    """

    def attempt(index: int) -> np.ndarray | Unreadable:
        try:
            return source.decode(index)
        except Unreadable as error:
            return error

    num_read = 0
    for position, item in enumerate(in_order(attempt, indices.tolist(), _IMAGES_AHEAD)):
        if isinstance(item, Unreadable) and on_corrupt == "error":
            raise UserError(
                f"cannot read image {item}; remove it, or set --data.on-corrupt skip (on_corrupt from Python)"
            )
        readable = not isinstance(item, Unreadable)
        num_read += readable
        yield item if readable else None
        if progress is not None:
            progress(position + 1, len(indices))
    if not num_read:
        raise UserError(f"none of the {len(indices)} images of {source.where} can be read")
