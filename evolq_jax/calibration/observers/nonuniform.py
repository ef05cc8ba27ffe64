"""The observer of quantizers that compare candidates of their own, whose steps are not equal."""

import jax
import jax.numpy as jnp

from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import Range, fake_quant
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array


def chunk_errors(
    spec: QuantSpec, bits: Array, bounds: Range, x: Array, importance: Array | None = None
) -> Array:
    """Error of every candidate on one chunk: [candidates, 1, ..., 1]; chunks add up.

    The quantizer says what an error is. `importance`, of the shape of `x`, weighs each value's squared error.
    """
    weight = jnp.ones_like(x) if importance is None else importance
    quantizer = spec.quantizer

    def error(site_qparams: SiteQParams) -> Array:
        return quantizer.error(spec, fake_quant(spec, site_qparams, x) - x, weight)

    indices = jnp.arange(quantizer.num_candidates(spec))
    return jax.lax.map(error, jax.vmap(lambda i: quantizer.candidate(spec, bits, bounds, i))(indices))
