"""Observers, one file each."""

from evolq_jax.quant.observers.base import Observer
from evolq_jax.quant.observers.ema import EMA
from evolq_jax.quant.observers.minmax import MINMAX
from evolq_jax.quant.observers.omse import OMSE, OMSE_SHARED
from evolq_jax.quant.observers.omse_ends import OMSE_ENDS
from evolq_jax.quant.observers.percentile import PERCENTILE
from evolq_jax.quant.observers.pow2 import POW2
from evolq_jax.quant.observers.ptf import PTF

OBSERVERS: dict[str, Observer] = {
    observer.name: observer for observer in (MINMAX, EMA, PERCENTILE, OMSE, OMSE_SHARED, OMSE_ENDS, PTF, POW2)
}
