"""The link `ridge`: corrects weights for the quantized input, in closed form."""

import jax
import jax.numpy as jnp
from flax import struct

from evolq_jax.calibration.layer import Layer, Moments, centred, damped, finite
from evolq_jax.calibration.link import LayerLink, NotAfter
from evolq_jax.calibration.links.bias import matching_bias, rounded
from evolq_jax.quant.observers.of_weight import weight_qparams
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array


def ridge(moments: Moments, weight: Array, damping: float | Array) -> Array:
    """The weight [in, out] that best gives the wanted output t from the quantized input x.

    This is ridge regression towards the float weight, as in ERQ (Zhong et al., 2407.06794, section 3.1). It
    minimises |x W - t|^2 + damping * |W - weight|^2. The second term is weighted by each channel's second
    moment. Both terms are centred, because the bias takes up the means.
    """
    xx, xt = centred(moments)
    factor = jax.scipy.linalg.cho_factor(damped(xx, damping))
    corrected = weight + jax.scipy.linalg.cho_solve(factor, xt - xx @ weight)
    return jnp.where(finite(corrected), corrected, weight)


@struct.dataclass
class RidgeConfig:
    """Settings of `ridge`.

    Attributes:
      damping: how strongly it keeps to the float weights, relative to each input channel's own second moment.
    """

    damping: float = 3.0


def correct_weight(spec: QuantSpec | None, moments: Moments, layer: Layer, settings: RidgeConfig) -> Layer:
    """Corrects weight and bias for the quantized input (see `ridge`). The weight's range is found anew."""
    weight = ridge(moments, layer.weight, settings.damping)
    site_qparams = layer.site_qparams
    if spec is not None and site_qparams is not None:
        site_qparams = weight_qparams(spec, site_qparams.bits, weight)
    return Layer(weight, matching_bias(moments, rounded(spec, weight, site_qparams)), site_qparams)


RIDGE = LayerLink(
    "ridge",
    "changes each weight to the one that best gives the wanted output from the quantized input",
    correct_weight,
    settings=RidgeConfig(),
    changes_params=True,
    corrects=True,
    not_after=NotAfter(
        lambda earlier: earlier.rounds or earlier.name == "own_output",
        "finds weight ranges anew, which would undo what came before",
    ),
)
