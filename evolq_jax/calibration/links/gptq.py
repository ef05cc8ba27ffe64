"""The link `gptq`: rounds weights with error feedback."""

import jax
import jax.numpy as jnp

from evolq_jax.calibration.layer import Layer, Moments, centred, damped, finite
from evolq_jax.calibration.link import LayerLink, NotAfter
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import fake_quant
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array

DAMPING = 0.01  # of each channel's second moment
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55)  # of the range


def round_weight(spec: QuantSpec | None, moments: Moments, layer: Layer, settings: None) -> Layer:
    """Rounds the weight with error feedback (see `error_feedback`); leaves it on its integer grid."""
    del settings
    if spec is None or layer.site_qparams is None:
        return layer
    weight, site_qparams = error_feedback(spec, moments, layer.weight, layer.site_qparams)
    return Layer(weight, layer.bias, site_qparams)


def error_feedback(
    spec: QuantSpec, moments: Moments, weight: Array, site_qparams: SiteQParams
) -> tuple[Array, SiteQParams]:
    """GPTQ (Frantar et al., 2210.17323): later channels take up the rounding error of each channel.

    Input channels go by falling second moment. Of ten clipped ranges, every output channel takes the one with
    the least error after the feedback; all take the same one if they share a scale.

    Returns:
      The weight [in, out] on the integer grid of the qparams beside it [1, out] or [1, 1].
    """
    xx, _ = centred(moments)
    order = jnp.argsort(-jnp.diag(xx))
    xx = damped(xx, DAMPING)[order][:, order]
    upper = jnp.linalg.cholesky(jnp.linalg.inv(xx), upper=True)
    rows = weight[order]

    def attempt(shrink: Array) -> tuple[Array, Array, Array]:
        candidate = site_qparams._replace(scale=shrink * site_qparams.scale)  # clipped around zero
        rounded = _feedback(spec, candidate, upper, rows)
        difference = rounded - rows
        error = ((xx @ difference) * difference).sum(0, keepdims=True)
        shared = candidate.scale.shape[-1] == 1  # by all output channels
        return error.sum(-1, keepdims=True) if shared else error, rounded, candidate.scale

    errors, rounded, scales = jax.lax.map(attempt, jnp.asarray(SHRINKS))
    best = errors.argmin(0)  # [1, out], or [1, 1] where one scale serves all

    def chosen(attempts: Array) -> Array:
        return jnp.take_along_axis(attempts, best[None], axis=0)[0]

    nearest = fake_quant(spec, site_qparams, weight)
    found = chosen(rounded)[jnp.argsort(order)], site_qparams._replace(scale=chosen(scales))
    return jax.tree.map(lambda new, old: jnp.where(finite(found), new, old), found, (nearest, site_qparams))


def _feedback(spec: QuantSpec, site_qparams: SiteQParams, upper: Array, rows: Array) -> Array:
    """One pass over the input channels of `rows` [in, out]; `upper` is the inverse's Cholesky factor."""
    following = jnp.arange(len(rows))

    def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, rounded = state
        row = jax.lax.dynamic_slice_in_dim(rows, i, 1)
        q = fake_quant(spec, site_qparams, row)
        factors = jax.lax.dynamic_index_in_dim(upper, i, keepdims=False)
        error = (row - q) / factors[i]
        later = jnp.where(following > i, factors, 0.0)
        return rows - later[:, None] * error, jax.lax.dynamic_update_slice_in_dim(rounded, q, i, 0)

    return jax.lax.fori_loop(0, len(rows), step, (rows, jnp.zeros_like(rows)))[1]


GPTQ = LayerLink(
    "gptq",
    "rounds weights input channel by channel, while later channels take up the error",
    round_weight,
    changes_params=True,
    corrects=True,
    rounds=True,
    not_after=NotAfter(lambda earlier: earlier.rounds, "rounds weights that have been rounded"),
)
