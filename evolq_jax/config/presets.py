"""Presets: settings of quantizers, chain and search that replace those of a config.

A preset keeps the config's bits, scheme and data.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from evolq_jax.config.experiment import Experiment
from evolq_jax.search.config import ATTENTION_WEIGHTS

__all__ = ["PRESETS", "Preset", "faithful", "fast", "strong", "thorough", "with_preset"]

Preset = Literal["default", "faithful", "fast", "strong", "thorough"]


def faithful(config: Experiment) -> Experiment:
    """The released code's settings, at this experiment's bits, scheme, passes and data.

    One thing is left out on purpose: the released code selects its result on the evaluation set.
    """
    fully_quantized = config.quant.scheme == "fully_quantized"
    quant = replace(
        config.quant,
        weight_observer="minmax",
        activation_observer="omse",
        residual_observer="ptf",
        edge_weight_bits=None,
        edge_activation_bits=None,
        signed_weights=False,
        softmax_quantizer="uniform",
        gelu_quantizer="uniform",
        integer_layer_norm=fully_quantized,
        integer_softmax=False,
        bias_correction=True,
    )
    search = replace(
        config.search,
        algorithm="EvolQ",
        output_start=False,
        sites=ATTENTION_WEIGHTS,
        parametrization="raw",
        generations=3,
        population_size=1,
        epsilon=1e-3 if config.quant.weight_bits <= 4 else 1e-4,
        mutation="absolute",
        pool_size=15,
        tournament_size=10,
        replacement="worst",
        fitness="info_nce",
        temperature=3.0,
        batch_size=100,
        holdout=0.0,
        teacher="integer_layer_norm" if fully_quantized else "float",
        rescore_start=True,
    )
    calibration = replace(config.calibration, chain=("ranges",))
    return replace(config, quant=quant, search=search, calibration=calibration)


def fast(config: Experiment) -> Experiment:
    """Outlier-aware ranges and half of the search's generations, at this experiment's bits, scheme and data.

    - Activations get a power-of-two factor for each channel.
    - Below 8 bits, outputs of softmax and GELU get logarithmic quantizers.
    - The inputs of the first and the last layer get 8 bits.
    - `deploy` has neither factors nor logarithms: there activations get `omse` ranges.
    - The image is not quantized again. It comes as 8-bit pixels, which integers can read as they are
      (docs/decisions.md).
    """
    config, generations = _outlier_aware(config), config.search.generations
    return replace(config, search=replace(config.search, generations=max(generations // 2, 1)))


def strong(config: Experiment) -> Experiment:
    """The ranges of `fast`. Then every linear layer is corrected and rounded, on its quantized input."""
    config, chain = _outlier_aware(config), ("ranges", "ridge", "gptq", "bias")
    return replace(config, calibration=replace(config.calibration, chain=chain))


def thorough(config: Experiment) -> Experiment:
    """The ranges of `fast`, and three times the search's passes."""
    config, passes = _outlier_aware(config), config.search.passes
    return replace(config, search=replace(config.search, passes=3 * passes))


def _outlier_aware(config: Experiment) -> Experiment:
    quant = config.quant
    narrow_softmax = (quant.softmax_bits or quant.activation_bits) < 8
    quant = replace(
        quant,
        weight_observer="omse",
        activation_observer="omse" if quant.scheme == "deploy" else "pow2",
        residual_observer="pow2",
        edge_weight_bits=8,
        edge_activation_bits=8,
        softmax_quantizer="log" if narrow_softmax else "uniform",
        gelu_quantizer="shifted_log" if quant.activation_bits < 8 else "uniform",
        quantize_image=False,
        integer_layer_norm=False,
        integer_softmax=False,
        bias_correction=False,
    )
    return replace(config, quant=quant, calibration=replace(config.calibration, chain=("ranges",)))


PRESETS: dict[Preset, Callable[[Experiment], Experiment]] = {
    "default": lambda config: config,
    "faithful": faithful,
    "fast": fast,
    "strong": strong,
    "thorough": thorough,
}


def with_preset(config: Experiment, preset: Preset) -> Experiment:
    """The config under a preset. `default` is the config as its file says."""
    return PRESETS[preset](config)
