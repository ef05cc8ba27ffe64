"""How much the values of activations and weights matter to the network's output.

This is the diagonal of the logits' Fisher information, estimated with one random vector for each image. Let v
be standard normal and p the float network's probabilities. Then the gradient g of `sum_c v_c sqrt(p_c) log
p_c` has E[g g^T] equal to the Hessian of the KL divergence from the float network. PTQ4ViT (Yuan et al.,
2111.12293) and BRECQ weigh errors by squared gradients in the same way. BRECQ uses labels; we do not.
"""

from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.network.chunks import image_chunks
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import Reading, float_reading
from evolq_jax.network.run import forward
from evolq_jax.network.sites import is_stacked, list_sites
from evolq_jax.objective.logits import random_score
from evolq_jax.quant.sites import FloatSite
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params

TokenWeights = dict[str, Array]  # "segment/layer" -> [chunks, L, B, N]


class _AddSite(FloatSite):
    """The float network with arrays added at some sites. Gradients are taken with respect to these."""

    def __init__(self, added: dict[str, Array]) -> None:
        self.added = added

    def __call__(self, name: str, x: Array) -> Array:
        return x + self.added[name] if name in self.added else x


class _SquareSite(FloatSite):
    """The float network with the mean squares of gradients at some sites as gradients of `squares`."""

    def __init__(self, squares: dict[str, Array]) -> None:
        self.squares = squares

    def __call__(self, name: str, x: Array) -> Array:
        return _measured(x, self.squares[name]) if name in self.squares else x


@jax.custom_vjp
def _measured(x: Array, squares: Array) -> Array:
    """Returns x [..., K]. The "gradient" of `squares` [...] is the mean over K of x's squared gradient.

    So no gradient of a whole activation is ever kept for all blocks.
    """
    del squares
    return x


_measured.defvjp(lambda x, squares: (x, None), lambda _, g: (g, (g**2).mean(-1)))


@partial(jax.jit, static_argnames=("parts", "shards"))
def token_weights(
    parts: ModelParts, params: Params, images: Array, key: Array, *, shards: int = 1
) -> TokenWeights:
    """Mean squared gradient at every token of every linear layer's output.

    The weights of one image in one layer have mean 1, so unsure images count no more than others. Layers
    without a site for the measurement (`Linear.importance`) have no weights.

    Args:
      parts: the network.
      params: float parameters.
      images: normalised images in chunks [chunks, B, height, width, channels].
      key: PRNG key; consumed.
      shards: devices that the images lie on (`network.image_chunks`).
    """
    layers = tuple(
        (f"{segment.name}/{linear.name}", f"{segment.name}/{linear.importance_site}")
        for segment in parts.segments
        for linear in segment.linears
        if linear.importance_site is not None
    )

    def one_chunk(chunk: tuple[Array, Array]) -> TokenWeights:
        images_of_chunk, keys_of_chunk = chunk
        shapes = _shapes(parts, {site for _, site in layers}, params, images_of_chunk)
        squares = {site: jnp.zeros(shape[:-1]) for site, shape in shapes.items()}
        squares = _gradients(parts, params, images_of_chunk, _SquareSite, entries=squares, keys=keys_of_chunk)
        # Windows of an image lie on its axis of images: all of an image's tokens are one row.
        return {
            name: _normalised(squares[site].reshape(len(squares[site]), images.shape[1], -1))
            for name, site in layers
        }

    # An image's vector depends neither on the chunks nor on the devices.
    count, size = images.shape[0] * images.shape[1], images.shape[1] // shards
    keys = image_chunks(jax.random.split(key, count), size, shards)
    return jax.lax.map(one_chunk, (images, keys))


def site_gradients(
    parts: ModelParts, names: tuple[str, ...], params: Params, images: Array, *, keys: Array
) -> dict[str, Array]:
    """The gradient of the random projection at sites, in their shape. Stacked sites have a leading L axis.

    `keys` has one PRNG key for each of the images [B, height, width, channels].
    """
    nothing = {name: jnp.zeros(shape) for name, shape in _shapes(parts, names, params, images).items()}
    return _gradients(parts, params, images, _AddSite, entries=nothing, keys=keys)


def _shapes(
    parts: ModelParts, names: Iterable[str], params: Params, images: Array
) -> dict[str, tuple[int, ...]]:
    """The shapes of what sites receive. Stacked sites have a leading L axis."""
    sites = list_sites(parts, params, images.shape[1:], images.shape[0])

    def shape(name: str) -> tuple[int, ...]:
        depth = sites[name].depth
        return sites[name].shape if depth is None else (depth, *sites[name].shape)

    return {name: shape(name) for name in names}


def _gradients(
    parts: ModelParts,
    params: Params,
    images: Array,
    make_site: Callable[[dict[str, Array]], FloatSite],
    *,
    entries: dict[str, Array],
    keys: Array,
) -> dict[str, Array]:
    """The gradient of the random projection to the entries that sites are made of."""

    def projected(entries: dict[str, Array]) -> Array:
        reading = Reading(lambda _, own: make_site(dict(own)), params, entries)
        return _projected(parts, reading, images, keys)

    return jax.grad(projected)(entries)


def importance(gradients: Array, num_images: int = 1) -> Array:
    """The weights of squared errors: 1 plus the squared gradient, relative to its mean over an image.

    One random vector per image gives a noisy estimate. The 1 keeps values that happen to have a small
    gradient. The leading axis of `gradients` has the images, or parts of images. If `num_images` does not
    divide that axis, all images share the values, and these count as one image.
    """
    count = num_images if gradients.shape[0] % num_images == 0 else 1
    squares = gradients.reshape(count, -1) ** 2
    mean = squares.mean(-1, keepdims=True)
    return 1 + (squares / jnp.where(mean > 0, mean, 1.0)).reshape(gradients.shape)


@partial(jax.jit, static_argnames=("parts", "names"))
def weight_importance(
    parts: ModelParts, names: tuple[str, ...], params: Params, images: Array, *, key: Array
) -> dict[str, Array]:
    """`importance` of every value of the named parameters. Squared gradients are summed over all chunks.

    Within a chunk the square of the sum replaces the sum of squares over images, because the images' vectors
    are independent. So chunks of another size give another estimate.

    Args:
      parts: the network.
      names: of parameters.
      params: float parameters.
      images: normalised images in chunks [chunks, B, height, width, channels].
      key: PRNG key; consumed.
    """
    leaves = flatten(params)

    def one_chunk(sums: dict[str, Array], chunk: tuple[Array, Array]) -> tuple[dict[str, Array], None]:
        def projected(chosen: dict[str, Array]) -> Array:
            images, keys = chunk
            return _projected(parts, float_reading(unflatten(leaves | chosen)), images, keys)

        gradients = jax.grad(projected)({name: leaves[name] for name in names})
        return {name: sums[name] + g**2 for name, g in gradients.items()}, None

    keys = jax.random.split(key, images.shape[:2])
    zeros = {name: jnp.zeros_like(leaves[name]) for name in names}
    sums = jax.lax.scan(one_chunk, zeros, (images, keys))[0]
    fn = {name: jax.vmap(importance) if is_stacked(parts, name) else importance for name in names}
    return {name: fn[name](jnp.sqrt(total)) for name, total in sums.items()}


def _projected(parts: ModelParts, reading: Reading, images: Array, keys: Array) -> Array:
    """The scalar whose gradient is taken."""
    logits = forward(parts, reading, images)
    return random_score(logits, jax.vmap(lambda key: jax.random.normal(key, logits.shape[1:]))(keys))


def _normalised(weights: Array) -> Array:
    """[L, B, N] -> the same with mean 1 for every block and image (0 where all are 0)."""
    mean = weights.mean(-1, keepdims=True)
    return weights / jnp.where(mean > 0, mean, 1.0)
