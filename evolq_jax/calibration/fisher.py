"""How much each token of a linear layer's output matters to the network's output.

The diagonal of the logits' Fisher information by one random vector for each image: with v standard normal
and p the float network's probabilities, the gradient g of `sum_c v_c sqrt(p_c) log p_c` has E[g g^T] equal
to the Hessian of the KL divergence from the float network. PTQ4ViT (Yuan et al., 2111.12293) and BRECQ
weight errors by squared gradients in the same way, the latter's with labels; no labels are used here.
"""

from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.network import forward, list_sites
from evolq_jax.quant.sites import FloatSite
from evolq_jax.typing import Array, ModelParts, Params

TokenWeights = dict[str, Array]  # "segment/layer" -> [chunks, L, B, ...]: the output's axes but its last


class _AddSite(FloatSite):
    """The float network with something added at some sites, to take gradients at."""

    def __init__(self, added: dict[str, Array]) -> None:
        self.added = added

    def __call__(self, name: str, x: Array) -> Array:
        return x + self.added[name] if name in self.added else x


@partial(jax.jit, static_argnames=("parts",))
def token_weights(parts: ModelParts, params: Params, images: Array, key: Array) -> TokenWeights:
    """Mean squared gradient at every token of every linear layer's output.

    The weights of one image in one layer have mean 1: unsure images count no more than others.

    Args:
      parts: the network; a layer's output must be a site of the layer's name.
      params: float parameters.
      images: normalised images in chunks [chunks, B, height, width, channels].
      key: PRNG key; consumed.
    """
    sites = list_sites(parts, params, images.shape[2:], images.shape[1])
    layers = [f"{segment.name}/{linear.name}" for segment in parts.segments for linear in segment.linears]
    nothing = {name: jnp.zeros((sites[name].depth or 1, *sites[name].shape)) for name in layers}

    def log_probabilities(added: dict[str, Array], images: Array) -> Array:
        logits = forward(parts, lambda segment, entries: _AddSite(dict(entries)), params, added, images)
        return jax.nn.log_softmax(logits)

    def one_chunk(chunk: tuple[Array, Array]) -> TokenWeights:
        images, keys = chunk

        def projected(added: dict[str, Array]) -> Array:
            log_p = log_probabilities(added, images)
            v = jax.vmap(lambda key: jax.random.normal(key, log_p.shape[1:]))(keys)
            return (v * jax.lax.stop_gradient(jnp.exp(log_p / 2)) * log_p).sum()

        gradients = jax.grad(projected)(nothing)
        return {name: _normalised((g**2).mean(-1)) for name, g in gradients.items()}

    keys = jax.random.split(key, images.shape[:2])  # an image's vector does not depend on the chunks
    return jax.lax.map(one_chunk, (images, keys))


def _normalised(weights: Array) -> Array:
    """[L, B, ...] -> the same with mean 1 for every block and image (0 where all are 0)."""
    mean = weights.mean(tuple(range(2, weights.ndim)), keepdims=True)
    return weights / jnp.where(mean > 0, mean, 1.0)
