"""The link `bias`: biases corrected, so that mean outputs are the wanted ones."""

from evolq_jax.calibration.layer import Layer, Moments
from evolq_jax.calibration.link import LayerLink
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.uniform import fake_quant
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array


def matching_bias(moments: Moments, weight: Array) -> Array:
    """The bias [out] with which the layer's mean output is the wanted one."""
    return (moments.target - moments.x @ weight) / moments.total


def correct_bias(spec: QuantSpec | None, moments: Moments, layer: Layer, settings: None) -> Layer:
    """Corrects the bias alone: the layer's mean output becomes the wanted one."""
    del settings
    weight = rounded(spec, layer.weight, layer.site_qparams)
    return layer._replace(bias=matching_bias(moments, weight))


def rounded(spec: QuantSpec | None, weight: Array, site_qparams: SiteQParams | None) -> Array:
    """The weight as its quantizer leaves it; itself where it has none."""
    return weight if spec is None or site_qparams is None else fake_quant(spec, site_qparams, weight)


BIAS = LayerLink(
    "bias",
    "sets biases so that each output's mean is the wanted one",
    correct_bias,
    changes_params=True,
    corrects=True,
    shared_ranges=True,
)
