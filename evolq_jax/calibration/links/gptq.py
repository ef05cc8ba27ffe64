"""The link `gptq`: rounds weights with error feedback."""

import jax
import jax.numpy as jnp

from evolq_jax.calibration.layer import Layer, Moments, centred, damped, finite
from evolq_jax.calibration.link import LayerLink, NotAfter
from evolq_jax.network.chunks import largest_divisor
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import fake_quant
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array

DAMPING = 0.01  # of each channel's second moment
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55)  # of the range
BLOCK = 32  # input channels at most (measured on a CPU: 16 and 64 are slower)


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
    xx, rows = damped(xx, DAMPING)[order][:, order], weight[order]
    shrinks = jnp.asarray(SHRINKS).reshape(-1, 1, 1)
    attempts = site_qparams._replace(scale=shrinks * site_qparams.scale)  # clipped around zero
    rounded, errors = _feedback(spec, attempts, _inverse_factor(xx), rows)
    errors = errors.sum(1, keepdims=True)
    if site_qparams.scale.shape[-1] == 1:  # shared by all output channels
        errors = errors.sum(-1, keepdims=True)
    best = errors.argmin(0)  # [1, out], or [1, 1] where one scale serves all

    def chosen(attempts: Array) -> Array:
        return jnp.take_along_axis(attempts, best[None], axis=0)[0]

    nearest = fake_quant(spec, site_qparams, weight)
    in_place = jnp.zeros_like(weight).at[order].set(chosen(rounded))
    found = in_place, site_qparams._replace(scale=chosen(attempts.scale))
    return jax.tree.map(lambda new, old: jnp.where(finite(found), new, old), found, (nearest, site_qparams))


def _inverse_factor(xx: Array) -> Array:
    """The upper Cholesky factor U of the inverse: `inv(xx) = U' U`. No inverse is made.

    If `xx = R R'` with R upper, then U is the inverse of R. R is the Cholesky factor of `xx` read backwards.
    """
    backwards = jnp.linalg.cholesky(xx[::-1, ::-1])
    return jax.scipy.linalg.solve_triangular(backwards[::-1, ::-1], jnp.eye(len(xx)))


def _feedback(spec: QuantSpec, attempts: SiteQParams, upper: Array, rows: Array) -> tuple[Array, Array]:
    """One pass over the input channels of `rows` [in, out], for all attempts at once.

    A channel's error reaches the rest of its block at once, and a later block when its turn comes: with one
    product for the errors of all blocks before (section 3.3 of the paper has one after each block, which
    writes all later channels every time).

    Args:
      spec: the weight's.
      attempts: quantizers, with a leading axis A on the scale.
      upper: the inverse's Cholesky factor U.
      rows: what is rounded.

    Returns:
      The rounded rows, and the squared error of the output that each input channel adds, both [A, in, out].
      The latter are squares of what is fed back: with rounded - rows = -U' fed and xx = inv(U) inv(U)', the
      error (rounded - rows)' xx (rounded - rows) is fed' fed.
    """
    total = len(rows)
    size = largest_divisor(total, BLOCK)
    within = jnp.arange(size)
    put = jax.lax.dynamic_update_slice_in_dim

    def one_block(number: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rounded, fed = state
        start = number * size
        columns = jax.lax.dynamic_slice_in_dim(upper, start, size, 1)  # [in, size]; below its block all zero
        own = jax.lax.dynamic_slice_in_dim(columns, start, size)

        def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            block, errors = state
            row = jax.lax.dynamic_slice_in_dim(block, i, 1, 1)
            q = fake_quant(spec, attempts, row)
            factor = jax.lax.dynamic_index_in_dim(own, i, keepdims=False)
            error = (row - q) / factor[i]
            block -= jnp.where(within > i, factor, 0.0)[:, None] * error
            return put(block, q, i, 1), put(errors, error, i, 1)

        block = jax.lax.dynamic_slice_in_dim(rows, start, size)
        block -= jnp.einsum("ji,ajo->aio", columns, fed, precision="highest")  # later blocks fed nothing yet
        block, errors = jax.lax.fori_loop(0, size, step, (block, jnp.zeros_like(block)))
        return put(rounded, block, start, 1), put(fed, errors, start, 1)

    nothing = jnp.zeros((len(attempts.scale), *rows.shape))
    rounded, fed = jax.lax.fori_loop(0, total // size, one_block, (nothing, nothing))
    return rounded, fed**2


GPTQ = LayerLink(
    "gptq",
    "rounds weights input channel by channel, while later channels take up the error",
    round_weight,
    changes_params=True,
    corrects=True,
    rounds=True,
    not_after=NotAfter(lambda earlier: earlier.rounds, "rounds weights that have been rounded"),
)
