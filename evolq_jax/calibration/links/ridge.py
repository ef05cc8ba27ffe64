"""The link `ridge`: weights corrected for the quantized input, in closed form."""

import jax
import jax.numpy as jnp

from evolq_jax.calibration.layer import Layer, Moments, centred, damped, finite
from evolq_jax.calibration.links.bias import matching_bias
from evolq_jax.calibration.links.bias import rounded as rounded
from evolq_jax.calibration.links.ranges import weight_qparams
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array


def ridge(moments: Moments, weight: Array, damping: float | Array) -> Array:
    """The weight [in, out] that best gives the wanted output t from the quantized input x.

    Minimises |x W - t|^2 + damping * |W - weight|^2, the latter weighted by each channel's second moment,
    both centred (the bias takes up the means): ridge regression towards the float weight, as in ERQ
    (Zhong et al., 2407.06794, section 3.1).
    """
    xx, xt = centred(moments)
    factor = jax.scipy.linalg.cho_factor(damped(xx, damping))
    corrected = weight + jax.scipy.linalg.cho_solve(factor, xt - xx @ weight)
    return jnp.where(finite(corrected), corrected, weight)


def ridge_link(spec: QuantSpec | None, moments: Moments, layer: Layer, damping: float) -> Layer:
    """Corrects weight and bias for the quantized input (see `ridge`); the weight's range is found anew."""
    weight = ridge(moments, layer.weight, damping)
    site_qparams = None if spec is None else weight_qparams(spec, weight)
    return Layer(weight, matching_bias(moments, rounded(spec, weight, site_qparams)), site_qparams)
