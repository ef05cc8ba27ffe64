"""How much each token's output of a linear layer matters to the network's output.

The diagonal Fisher information of the logits, by one random vector for each image: with v standard normal
and p the float network's probabilities, the gradient g of `sum_c v_c sqrt(p_c) log p_c` has E[g g^T] equal
to the Hessian of the KL divergence to the float network (as PTQ4ViT's and BRECQ's weights, without labels).
"""

from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.network import forward
from evolq_jax.quant.sites import FloatSite
from evolq_jax.typing import Array, ModelParts, Params

Weights = dict[str, Array]  # "segment/layer" -> [chunks, L, B, N]


class _AddSite(FloatSite):
    """The float network with something added at some sites."""

    def __init__(self, added: dict[str, Array]) -> None:
        self.added = added

    def __call__(self, name: str, x: Array) -> Array:
        return x + self.added[name] if name in self.added else x


@partial(jax.jit, static_argnames=("parts",))
def token_weights(parts: ModelParts, params: Params, chunks: Array, key: Array) -> Weights:
    """Mean squared gradient of every linear layer's output at every token.

    Each image's weights have mean 1 in every layer.
    """
    names = [f"{segment.name}/{linear.name}" for segment in parts.segments for linear in segment.linears]

    def score(added: dict[str, Array], images: Array, v: Array) -> Array:
        logits = forward(parts, lambda segment, entries: _AddSite(dict(entries)), params, added, images)
        log_p = jax.nn.log_softmax(logits)
        return (v * jax.lax.stop_gradient(jnp.exp(log_p / 2)) * log_p).sum()

    def one_chunk(args: tuple[Array, Array]) -> Weights:
        images, key = args
        zeros = _zeros(parts, params, images, names)
        classes = jax.eval_shape(lambda: _float_logits(parts, params, images)).shape[-1]
        v = jax.random.normal(key, (images.shape[0], classes))
        gradients = jax.grad(score)(zeros, images, v)
        squares = {name: (g**2).mean(-1) for name, g in gradients.items()}  # [L, B, N]
        return {
            name: s / jnp.maximum(s.mean(tuple(range(2, s.ndim)), keepdims=True), 1e-30)
            for name, s in squares.items()
        }

    return jax.lax.map(one_chunk, (chunks, jax.random.split(key, len(chunks))))


def _float_logits(parts: ModelParts, params: Params, images: Array) -> Array:
    return forward(parts, lambda segment, entries: FloatSite(), params, {}, images)


def _zeros(parts: ModelParts, params: Params, images: Array, names: list[str]) -> dict[str, Array]:
    from evolq_jax.network import list_sites

    sites = list_sites(parts, params, images.shape[1:], images.shape[0])
    return {name: jnp.zeros((sites[name].depth or 1, *sites[name].shape)) for name in names}
