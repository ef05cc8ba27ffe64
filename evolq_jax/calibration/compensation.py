"""Closed-form corrections of one linear layer whose input is quantized.

All work on second moments of the layer's input over the calibration tokens, so their cost does not grow
with the number of images once those are summed up.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration import patches
from evolq_jax.calibration.ranges import weight_qparams
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.quant.uniform import fake_quant
from evolq_jax.typing import Array, QParams

GPTQ_DAMPING = 0.01  # of each channel's second moment
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55)


class Moments(NamedTuple):
    """Sums over tokens of a layer's input as the quantized network has it (x) and what is wanted."""

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
    qparams: QParams | None


def centred(moments: Moments) -> tuple[Array, Array]:
    """Covariances, times the count, of input with input [in, in] and with the wanted output [in, out]."""
    mean = moments.x / moments.total
    return moments.xx - jnp.outer(mean, moments.x), moments.xt - jnp.outer(mean, moments.target)


def damped(xx: Array, damping: float | Array) -> Array:
    """`xx` with `damping` of each channel's own second moment added; empty channels get a floor.

    The usual share of the mean moment would let a few outlier channels, thousands of times the others,
    set the strength for all.
    """
    diagonal = jnp.diag(xx)
    return xx + jnp.diag(damping * diagonal + 1e-6 * diagonal.mean() + 1e-12)


def finite(tree: Any) -> Array:
    """Whether a solution can be used: moments that lost their definiteness in float32 give none."""
    return jnp.all(jnp.asarray([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def ridge(moments: Moments, weight: Array, damping: float | Array) -> Array:
    """The weight [in, out] that best gives the wanted output t from the quantized input x.

    Minimises |x W - t|^2 + damping * |W - weight|^2, the latter weighted by each channel's second moment,
    both centred (the bias takes up the means): ridge regression towards the float weight, as in ERQ
    (Zhong et al., 2407.06794, section 3.1).
    """
    xx, xt = centred(moments)
    factor = jax.scipy.linalg.cho_factor(damped(xx, damping))
    corrected = weight + jax.scipy.linalg.cho_solve(factor, xt - xx @ weight)
    return jnp.where(finite(corrected), corrected, weight)


def matching_bias(moments: Moments, weight: Array) -> Array:
    """The bias [out] with which the layer's mean output is the wanted one."""
    return (moments.target - moments.x @ weight) / moments.total


def ridge_link(spec: QuantSpec | None, moments: Moments, layer: Layer, damping: float) -> Layer:
    """Corrects weight and bias for the quantized input (see `ridge`); the weight's range is found anew."""
    weight = ridge(moments, layer.weight, damping)
    qparams = None if spec is None else weight_qparams(spec, weight)
    return Layer(weight, matching_bias(moments, _rounded(spec, weight, qparams)), qparams)


def gptq_link(spec: QuantSpec | None, moments: Moments, layer: Layer, damping: float) -> Layer:
    """Rounds the weight with error feedback (see `error_feedback`); leaves it on its integer grid."""
    if spec is None or layer.qparams is None:
        return layer
    weight, qparams = error_feedback(spec, moments, layer.weight, layer.qparams, GPTQ_DAMPING)
    return Layer(weight, layer.bias, qparams)


def bias_link(spec: QuantSpec | None, moments: Moments, layer: Layer, damping: float) -> Layer:
    """Corrects the bias alone: the layer's mean output becomes the wanted one."""
    del damping
    weight = _rounded(spec, layer.weight, layer.qparams)
    return layer._replace(bias=matching_bias(moments, weight))


def _rounded(spec: QuantSpec | None, weight: Array, qparams: QParams | None) -> Array:
    return weight if spec is None or qparams is None else fake_quant(spec, qparams, weight)


LayerLink = Callable[[QuantSpec | None, Moments, Layer, float], Layer]
LINKS: dict[str, LayerLink] = {
    "ridge": ridge_link,
    "gptq": gptq_link,
    "bias": bias_link,
}


def moments_of(token: Array, x: Array, wanted: Array) -> Moments:
    """Sums over tokens, weighted by `token` [T, 1], of input [T, in] or [G, T, in] and output [T, out]."""
    if x.ndim == 3:
        return jax.vmap(moments_of, in_axes=(None, 0, 0))(token, x, patches.split(wanted, len(x)))
    weighted = token * x
    return Moments(token.sum(), weighted.sum(0), (token * wanted).sum(0), weighted.T @ x, weighted.T @ wanted)


def corrected(
    links: tuple[LayerLink, ...], spec: QuantSpec | None, moments: Moments, layer: Layer, damping: float
) -> Layer:
    """A linear layer or convolution changed by `links` one after the other; groups each by their own moments.

    Groups that share one range keep it and their weights: only `bias` corrects them.
    """
    groups = len(moments.xx) if moments.xx.ndim == 3 else 1
    shared = groups > 1 and spec is not None and not spec.per_channel
    if shared:
        links = tuple(link for link in links if link is bias_link)

    def change(moments: Moments, layer: Layer) -> Layer:
        for link in links:
            layer = link(spec, moments, layer, damping)
        return layer

    def as_matrix(leaf: Array) -> Array:
        if groups > 1:  # a range that groups share is repeated for each
            leaf = jnp.broadcast_to(leaf, (*leaf.shape[:-1], layer.weight.shape[-1]))
        return patches.as_matrix(leaf, groups)

    weight, *numbers = jax.tree.map(as_matrix, (layer.weight, layer.qparams))
    if groups == 1:
        found = change(moments, Layer(weight, layer.bias, *numbers))
    else:
        found = jax.vmap(change)(moments, Layer(weight, layer.bias.reshape(groups, -1), *numbers))
    qparams = layer.qparams
    if qparams is not None and not shared:
        qparams = jax.tree.map(lambda new, old: patches.as_weight(new, old.shape), found.qparams, qparams)
    return Layer(patches.as_weight(found.weight, layer.weight.shape), found.bias.reshape(-1), qparams)


def error_feedback(
    spec: QuantSpec, moments: Moments, weight: Array, qparams: QParams, damping: float
) -> tuple[Array, QParams]:
    """GPTQ (Frantar et al., 2210.17323): the channels still to come take up each one's rounding error.

    Input channels go by falling second moment. Every output channel takes, of ten clipped ranges, that
    with the least error after the feedback.

    Returns:
      The weight [in, out] on the integer grid of the qparams beside it [1, out].
    """
    xx, _ = centred(moments)
    order = jnp.argsort(-jnp.diag(xx))
    xx = damped(xx, damping)[order][:, order]
    upper = jnp.linalg.cholesky(jnp.linalg.inv(xx), upper=True)
    rows = weight[order]

    def attempt(shrink: Array) -> tuple[Array, Array, QParams]:
        candidate = qparams._replace(scale=shrink * qparams.scale)  # clipped around zero
        rounded = _feedback(spec, candidate, upper, rows)
        difference = rounded - rows
        return ((xx @ difference) * difference).sum(0, keepdims=True), rounded, candidate

    errors, rounded, candidates = jax.lax.map(attempt, jnp.asarray(SHRINKS))
    best = errors.argmin(0)  # [1, out]

    def chosen(attempts: Array) -> Array:
        return jnp.take_along_axis(attempts, best[None], axis=0)[0]

    nearest = fake_quant(spec, qparams, weight)
    found = chosen(rounded)[jnp.argsort(order)], QParams(*map(chosen, candidates))
    return jax.tree.map(lambda new, old: jnp.where(finite(found), new, old), found, (nearest, qparams))


def _feedback(spec: QuantSpec, qparams: QParams, upper: Array, rows: Array) -> Array:
    """One pass over the input channels of `rows` [in, out]; `upper` is the inverse's Cholesky factor."""
    following = jnp.arange(len(rows))

    def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, rounded = state
        row = jax.lax.dynamic_slice_in_dim(rows, i, 1)
        q = fake_quant(spec, qparams, row)
        factors = jax.lax.dynamic_index_in_dim(upper, i, keepdims=False)
        error = (row - q) / factors[i]
        later = jnp.where(following > i, factors, 0.0)
        return rows - later[:, None] * error, jax.lax.dynamic_update_slice_in_dim(rounded, q, i, 0)

    return jax.lax.fori_loop(0, len(rows), step, (rows, jnp.zeros_like(rows)))[1]
