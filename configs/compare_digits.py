"""Searches and gradient descent on the embedded default, from the same init, with the same budget.

    evolq compare configs/compare_digits.py

Digits at W2A8 (`configs/digits_w2a8.py`). `greedy` walks like the released code: one child at a time, with
steps relative to each scale. The learning rates have the best calibration fitness at seed 0. Tried were 0.003
to 0.3 for Adam and 0.003 to 300 for SGD, in factors of about three. Takes about two minutes on two CPU cores.
"""

from dataclasses import replace

from evolq_jax.config.comparison import Comparison, Method, greedy
from evolq_jax.config.experiment import BaselineConfig
from evolq_jax.configs.digits_w2a8 import config as digits

adam = replace(digits, baseline=BaselineConfig(optimizer="adam", learning_rate=0.03))
sgd = replace(digits, baseline=BaselineConfig(optimizer="sgd", learning_rate=100.0))
config = Comparison(
    name="compare_digits",
    reference="greedy",
    budget=12_000,
    methods=(
        Method("greedy", replace(digits, search=greedy(digits.search))),
        Method("search", digits),
        Method("adam", adam, ("baseline",)),
        Method("sgd", sgd, ("baseline",)),
        Method("adam, search", adam, ("baseline", "search")),
        Method("search, adam", adam, ("search", "baseline")),
    ),
)
