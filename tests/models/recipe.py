"""Weights and images by a fixed recipe, with which logits were recorded (it needs numpy alone)."""

import re
import zlib

import numpy as np

Arrays = dict[str, np.ndarray]


def generator(key: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    if key.endswith(".running_var"):
        return (0.5 + generator(key).random(shape)).astype(np.float32)
    x = generator(key).standard_normal(shape)
    if key.endswith(".running_mean"):
        x = 0.1 * x
    elif re.search(r"\.gamma(_[12])?$", key):  # of LayerScale
        x = 1 + 0.1 * x
    elif not key.endswith(".weight"):
        x = 0.02 * x
    elif len(shape) == 1:
        x = 1 + 0.1 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:]))
    return x.astype(np.float32)


def images(size: int, channels: int) -> np.ndarray:
    """[2, size, size, channels], normalised."""
    x = generator("input").standard_normal((2, channels, size, size)).astype(np.float32)
    return x.transpose(0, 2, 3, 1)
