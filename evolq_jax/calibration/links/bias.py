"""The link `bias`: corrects biases, so that each mean output is the wanted one."""

from evolq_jax.calibration.layer import Layer, Moments
from evolq_jax.calibration.link import LayerLink
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import fake_quant
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array


def matching_bias(moments: Moments, weight: Array) -> Array:
    """The bias [out] that makes the layer's mean output the wanted one."""
    return (moments.target - moments.x @ weight) / moments.total


def correct_bias(spec: QuantSpec | None, moments: Moments, layer: Layer, settings: None) -> Layer:
    """Corrects only the bias: the layer's mean output becomes the wanted one."""
    del settings
    weight = rounded(spec, layer.weight, layer.site_qparams)
    return layer._replace(bias=matching_bias(moments, weight))


def rounded(spec: QuantSpec | None, weight: Array, site_qparams: SiteQParams | None) -> Array:
    """The weight after its quantizer. Without a quantizer: the weight itself."""
    return weight if spec is None or site_qparams is None else fake_quant(spec, site_qparams, weight)


BIAS = LayerLink(
    "bias",
    "sets biases so that each output's mean is the wanted one",
    correct_bias,
    changes_params=True,
    corrects=True,
    shared_ranges=True,
)
