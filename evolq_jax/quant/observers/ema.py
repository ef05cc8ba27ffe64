"""The `ema` observer: extremes smoothed over the batches."""

from dataclasses import dataclass

import jax

from evolq_jax.quant.observers.base import Observer
from evolq_jax.quant.quantizers.base import Range
from evolq_jax.typing import Array


@dataclass(frozen=True)
class Ema(Observer):
    """An exponential moving average of the batches' ranges, in their order.

    Attributes:
      smoothing: the share of a new batch.
    """

    name: str = "ema"
    does: str = "averages the extremes of the batches, each new one with a small share"
    channels_apart: bool = True
    smoothing: float = 0.01

    def combine_ranges(self, batches: Range) -> Range:
        """Smoothed; the first batch is the start."""

        def smooth(running: Array, new: Array) -> tuple[Array, None]:
            return running + self.smoothing * (new - running), None

        low, high = (jax.lax.scan(smooth, ends[0], ends[1:])[0] for ends in batches)
        return low, high


EMA = Ema()
