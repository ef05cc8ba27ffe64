"""All steps of an observer on a tensor that is there as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evolq_jax.quant.observers.of_quantizer import observer_of
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.spec import QuantSpec


def weight_qparams(
    spec: QuantSpec, bits: Array, weight: Array, importance: Array | None = None
) -> SiteQParams:
    """The quantizer of one weight [..., K] by its spec's observer.

    `bits` is [1, ..., 1], `importance` of the weight's shape.
    """
    observer, errors = observer_of(spec), None
    bounds = observer.batch_range(spec, weight.shape, observer.chunk_range(spec, weight.shape, weight))
    for grid in range(observer.num_grids):
        if errors is not None:
            bounds = observer.narrow(spec, bounds, errors)
        errors = observer.chunk_errors(spec, bits, bounds, weight, importance=importance, grid=grid)
    return observer.qparams(spec, bits, bounds, errors=errors, grid=max(0, observer.num_grids - 1))
