"""Presets: settings of quantizers, chain and search that replace those of a config.

A preset keeps the config's bits, scheme and data.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from evolq_jax.calibration.chain import CORRECTED
from evolq_jax.config.experiment import Experiment, QuantConfig
from evolq_jax.search.config import ATTENTION_WEIGHTS

__all__ = ["PRESETS", "Preset", "faithful", "fast", "plain", "strong", "thorough", "with_preset"]

Preset = Literal["default", "faithful", "plain", "fast", "strong", "thorough"]

BY_OUTPUTS = ("ranges", "own_output")


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
        quantize_image=not config.model.name.startswith("vit_base"),  # as the released code has it
    )
    search = replace(
        config.search,
        algorithm="EvolQ",
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
        batch_size=None,  # 100, as nothing is held out
        holdout=0.0,
        teacher="integer_layer_norm" if fully_quantized else "float",
        rescore_start=True,
    )
    return _with_chain(replace(config, search=search), ("ranges",), quant)


def plain(config: Experiment) -> Experiment:
    """What a search can do by itself: no outlier-aware ranges, and weights stay as they are.

    Weight ranges have the least squared error, activation ranges are the extremes. Then each output channel's
    range is found anew by the layer's output, and the search follows.
    """
    quant = replace(
        config.quant,
        weight_observer="omse",
        activation_observer="omse" if config.quant.scheme == "deploy" else "minmax",
        residual_observer="ptf",
        edge_weight_bits=8,
        edge_activation_bits=8,
        softmax_quantizer="uniform",
        gelu_quantizer="uniform",
        integer_layer_norm=False,
        integer_softmax=False,
        bias_correction=False,
        quantize_image=True,
    )
    return _with_chain(config, BY_OUTPUTS, quant)


def fast(config: Experiment) -> Experiment:
    """Outlier-aware ranges and half of the search's generations, at this experiment's bits, scheme and data.

    - Activations get a power-of-two factor for each channel.
    - Below 8 bits, outputs of softmax and GELU get logarithmic quantizers.
    - The inputs of the first and the last layer get 8 bits.
    - `deploy` has neither factors nor logarithms: there activations get `omse` ranges.
    - The image is not quantized again. It comes as 8-bit pixels, which integers can read as they are
      (docs/decisions.md).
    - Each output channel's range is found anew by the layer's output.
    """
    config, generations = _outlier_aware(config, BY_OUTPUTS), config.search.generations
    return replace(config, search=replace(config.search, generations=max(generations // 2, 1)))


def strong(config: Experiment) -> Experiment:
    """The ranges of `fast`. Then every linear layer is corrected and rounded, on its quantized input.

    This is the best known, and what a config has that says nothing of quantizers and chain.
    """
    return _outlier_aware(config, CORRECTED)


def thorough(config: Experiment) -> Experiment:
    """The ranges of `fast`, and three times the search's passes."""
    config, passes = _outlier_aware(config, BY_OUTPUTS), config.search.passes
    return replace(config, search=replace(config.search, passes=3 * passes))


def _outlier_aware(config: Experiment, chain: tuple[str, ...]) -> Experiment:
    quant = replace(
        config.quant,
        weight_observer="omse",
        activation_observer=None,
        residual_observer="pow2",
        edge_weight_bits=8,
        edge_activation_bits=8,
        softmax_quantizer=None,
        gelu_quantizer=None,
        quantize_image=False,
        integer_layer_norm=False,
        integer_softmax=False,
        bias_correction=False,
    )
    return _with_chain(config, chain, quant)


def _with_chain(config: Experiment, chain: tuple[str, ...], quant: QuantConfig) -> Experiment:
    # Both at once, since some chains and quantizers do not go together.
    return replace(config, quant=quant, calibration=replace(config.calibration, chain=chain))


PRESETS: dict[Preset, Callable[[Experiment], Experiment]] = {
    "default": lambda config: config,
    "faithful": faithful,
    "plain": plain,
    "fast": fast,
    "strong": strong,
    "thorough": thorough,
}


def with_preset(config: Experiment, preset: Preset) -> Experiment:
    """The config under a preset. `default` is the config as its file says."""
    return PRESETS[preset](config)
