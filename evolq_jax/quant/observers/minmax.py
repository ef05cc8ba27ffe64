"""The `minmax` observer: the extremes of all batches."""

from evolq_jax.quant.observers.base import Observer

MINMAX = Observer("minmax", "takes the range from the least to the largest value", channels_apart=True)
