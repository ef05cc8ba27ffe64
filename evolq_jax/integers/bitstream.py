"""Codes of b bits as a stream of bytes.

The stream is little-endian: code i takes the bits from `i * b` on, its lowest first, and byte j holds the
bits from `8 * j` on, also lowest first. The end is padded with zeros to a whole byte. So at 4 bits the first
code is the low half of the first byte, as in ONNX's INT4.
"""

import jax.numpy as jnp
import numpy as np

from evolq_jax.typing import Array


def num_bytes(count: int, bits: int) -> int:
    """Bytes of a stream of so many codes."""
    return -(-count * bits // 8)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes of any shape, as uint8 [num_bytes]. Negative codes are kept in two's complement of b bits."""
    fields = codes.astype(np.int64).ravel().astype(np.uint8)[:, None]
    return np.packbits(np.unpackbits(fields, axis=1, count=bits, bitorder="little"), bitorder="little")


def unpack(stream: np.ndarray, bits: int, shape: tuple[int, ...], *, signed: bool) -> np.ndarray:
    """The inverse of `pack`: int8 or uint8 codes of this shape."""
    count = int(np.prod(shape))
    fields = np.unpackbits(stream, count=count * bits, bitorder="little").reshape(count, bits)
    codes = np.packbits(fields, axis=1, bitorder="little")[:, 0]
    if signed:
        codes = _sign_extended(codes.astype(np.int16), bits).astype(np.int8)
    return codes.reshape(shape)


def unpack_traced(stream: Array, bits: Array | int, shape: tuple[int, ...], *, signed: bool) -> Array:
    """As `unpack`, in a compiled program; the bits may be traced. Gives int32 codes."""
    count = int(np.prod(shape))
    first = jnp.arange(count, dtype=jnp.int32) * bits
    padded = jnp.concatenate([stream, jnp.zeros(1, stream.dtype)]).astype(jnp.int32)
    both = padded[first // 8] | padded[first // 8 + 1] << 8
    codes = both >> first % 8 & (1 << bits) - 1
    return (_sign_extended(codes, bits) if signed else codes).reshape(shape)


def _sign_extended(codes, bits):  # type: ignore[no-untyped-def]
    """Fields of b bits as the negative numbers that they stand for."""
    half = 1 << bits - 1
    return (codes ^ half) - half
