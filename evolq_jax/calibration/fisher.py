"""How much the values of activations and weights matter to the network's output.

This is the diagonal of the logits' Fisher information, estimated with one random vector for each image. Let v
be standard normal and p the float network's probabilities. Then the gradient g of `sum_c v_c sqrt(p_c) log
p_c` has E[g g^T] equal to the Hessian of the KL divergence from the float network. PTQ4ViT (Yuan et al.,
2111.12293) and BRECQ weigh errors by squared gradients in the same way. BRECQ uses labels; we do not.
"""

from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.network.chunks import image_chunks
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import Reading
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
        names = tuple(site for _, site in layers)
        gradients = site_gradients(parts, names, params, images_of_chunk, keys=keys_of_chunk)
        squares = {name: (gradients[site] ** 2).mean(-1) for name, site in layers}
        # Windows of an image lie on its axis of images: all of an image's tokens are one row.
        return {name: _normalised(g.reshape(len(g), images.shape[1], -1)) for name, g in squares.items()}

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
    sites = list_sites(parts, params, images.shape[1:], images.shape[0])
    depths = {name: [] if sites[name].depth is None else [sites[name].depth] for name in names}
    nothing = {name: jnp.zeros((*depths[name], *sites[name].shape)) for name in names}
    return jax.grad(lambda added: _projected(parts, params, images, added=added, keys=keys))(nothing)


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
            return _projected(parts, unflatten(leaves | chosen), images, added={}, keys=keys)

        gradients = jax.grad(projected)({name: leaves[name] for name in names})
        return {name: sums[name] + g**2 for name, g in gradients.items()}, None

    keys = jax.random.split(key, images.shape[:2])
    zeros = {name: jnp.zeros_like(leaves[name]) for name in names}
    sums = jax.lax.scan(one_chunk, zeros, (images, keys))[0]
    fn = {name: jax.vmap(importance) if is_stacked(parts, name) else importance for name in names}
    return {name: fn[name](jnp.sqrt(total)) for name, total in sums.items()}


def _projected(
    parts: ModelParts, params: Params, images: Array, *, added: dict[str, Array], keys: Array
) -> Array:
    """The scalar whose gradient is taken, with arrays added at sites."""
    logits = forward(parts, Reading(lambda _, entries: _AddSite(dict(entries)), params, added), images)
    return random_score(logits, jax.vmap(lambda key: jax.random.normal(key, logits.shape[1:]))(keys))


def _normalised(weights: Array) -> Array:
    """[L, B, N] -> the same with mean 1 for every block and image (0 where all are 0)."""
    mean = weights.mean(-1, keepdims=True)
    return weights / jnp.where(mean > 0, mean, 1.0)
