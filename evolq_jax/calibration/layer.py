"""A linear layer as layer-wise links see it, and the moments of its input."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration import patches
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.typing import Array

NARROW = 192  # input channels whose products are faster as one (measured on a CPU)


class Moments(NamedTuple):
    """Sums over tokens: of a layer's input x in the quantized network, and of the wanted output."""

    total: Array  # scalar: the sum of the tokens' weights
    x: Array  # [in]
    target: Array  # [out]: of the wanted output
    xx: Array  # [in, in]
    xt: Array  # [in, out]: input times wanted output


class Layer(NamedTuple):
    """A linear layer: weight [in, out], bias [out], and the weight's quantizer (None: float).

    Groups of a convolution have a leading axis, in `Moments` too.
    """

    weight: Array
    bias: Array
    site_qparams: SiteQParams | None


def centred(moments: Moments) -> tuple[Array, Array]:
    """Covariances times the count: of input with input [in, in], and with the wanted output [in, out]."""
    mean = moments.x / moments.total
    return moments.xx - jnp.outer(mean, moments.x), moments.xt - jnp.outer(mean, moments.target)


def damped(xx: Array, damping: float | Array) -> Array:
    """`xx` plus `damping` times each channel's own second moment. Empty channels get a floor.

    The usual damping is a share of the mean moment. A few outlier channels, thousands of times larger than
    the others, would then set its strength for all channels.
    """
    diagonal = jnp.diag(xx)
    return xx + jnp.diag(damping * diagonal + 1e-6 * diagonal.mean() + 1e-12)


def finite(tree: Any) -> Array:
    """Whether a solution can be used. Moments that lost their definiteness in float32 give none."""
    return jnp.all(jnp.asarray([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def moments_of(token: Array, x: Array, wanted: Array) -> Moments:
    """Sums over tokens, weighted by `token` [T, 1], of input [T, in] or [G, T, in] and output [T, out].

    The output of groups may also be [G, T, out / G].
    """
    if x.ndim == 3:
        wanted = wanted if wanted.ndim == 3 else patches.split(wanted, len(x))
        return jax.vmap(moments_of, in_axes=(None, 0, 0))(token, x, wanted)
    weighted = token * x
    return Moments(
        token.sum(), weighted.sum(0), (token * wanted).sum(0), _symmetric(weighted, x), weighted.T @ wanted
    )


def _symmetric(weighted: Array, x: Array) -> Array:
    """`weighted' x` [in, in], which is symmetric: what lies below the diagonal is mirrored where that pays.

    In the widest layers this product costs more than running them.
    """
    half = x.shape[-1] // 2
    if half < NARROW:
        return weighted.T @ x
    beside = weighted[:, :half].T @ x[:, half:]
    first, second = _symmetric(weighted[:, :half], x[:, :half]), _symmetric(weighted[:, half:], x[:, half:])
    return jnp.block([[first, beside], [beside.T, second]])


def of_output(moments: Moments, layer: Layer) -> Moments:
    """The moments of what a layer gives, from those whose target is what it multiplies."""
    if moments.xx.ndim == 3:
        groups = len(moments.xx)
        matrix, bias = patches.as_matrix(layer.weight, groups), layer.bias.reshape(groups, -1)
        return jax.vmap(of_output)(moments, Layer(matrix, bias, None))
    weight = patches.as_matrix(layer.weight)
    return moments._replace(
        target=moments.target @ weight + moments.total * layer.bias,
        xt=moments.xt @ weight + jnp.outer(moments.x, layer.bias),
    )
