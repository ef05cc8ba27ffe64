"""Gradient baselines for the search: optax over the same scales, with straight-through rounding."""
