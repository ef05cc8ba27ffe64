"""Convolutions as linear layers over patches. So a link that corrects linear layers corrects both.

Take a convolution of odd size and stride 1, padded with zeros so that the image keeps its size. At every
position it is a product: the neighbourhood times the kernel as a matrix. A grouped convolution is one such
product for each group; its arrays have a leading G axis here.
"""

import jax.numpy as jnp

from evolq_jax.typing import Array


def tokens(x: Array, weight: Array) -> Array:
    """The rows that a layer with this weight multiplies, position by position.

    Args:
      x: the layer's input [..., in]; for kernels [B, height, width, in].
      weight: [in, out], or a kernel HWIO [k, k, in / G, out].

    Returns:
      [T, in]; for kernels [T, k * k * in], or with groups [G, T, k * k * in / G].
    """
    if weight.ndim == 2:
        return x.reshape(-1, x.shape[-1])
    (rows, columns, inside, _), (b, h, w, channels) = weight.shape, x.shape
    padded = jnp.pad(x, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
    shifted = [padded[:, i : i + h, j : j + w] for i in range(rows) for j in range(columns)]
    patches = jnp.stack(shifted, axis=-2).reshape(b * h * w, rows * columns, channels // inside, inside)
    patches = patches.transpose(2, 0, 1, 3).reshape(channels // inside, b * h * w, -1)
    return patches if len(patches) > 1 else patches[0]


def product(found: Array, weight: Array) -> Array:
    """The layer's output without its bias [T, out], from its `tokens`."""
    if found.ndim == 2:
        return found @ as_matrix(weight)
    return merged(found @ as_matrix(weight, len(found)))


def as_matrix(weight: Array, groups: int = 1) -> Array:
    """The matrix [in, out], or [G, in, out], that multiplies `tokens`. Works for a kernel's scales too."""
    if weight.ndim == 2:
        return weight
    matrix = weight.reshape(-1, weight.shape[-1])
    return matrix if groups == 1 else split(matrix, groups)


def as_weight(matrix: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `as_matrix`: a weight of this shape."""
    return (matrix if matrix.ndim == 2 else merged(matrix)).reshape(shape)


def split(x: Array, groups: int) -> Array:
    """[T, out] -> [G, T, out / G]."""
    return x.reshape(len(x), groups, -1).swapaxes(0, 1)


def merged(x: Array) -> Array:
    """The inverse of `split`."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)
