"""BatchNorm at inference, and how it is folded into the layer beside it.

Files hold a BatchNorm as a layer of its own. Our parameter trees hold it as a child: `bn` of the convolution
or linear layer whose output it normalises, or `bn_before` of the linear layer whose input it normalises.
Networks run with and without these children. We quantize the folded weights, because a quantized network
computes with them.
"""

from typing import Any

import numpy as np

from evolq_jax.typing import Array, Params

EPS = 1e-5  # PyTorch's default, which all networks here were trained with


def batch_norm(params: Params, x: Array) -> Array:
    """`(x - running_mean) / sqrt(running_var + eps) * weight + bias` over the last axis of [..., K]."""
    gain = params["weight"] / (params["running_var"] + EPS) ** 0.5
    return x * gain + (params["bias"] - params["running_mean"] * gain)


def fold(params: Params) -> Params:
    """A tree without BatchNorms that computes the same function. Folding runs in float64, in numpy.

    With `gain = weight_bn / sqrt(running_var + eps)` and `shift = bias_bn - running_mean * gain`:

    - after a layer: `weight * gain` (per output channel), `bias * gain + shift`;
    - before one: `gain[:, None] * weight`, `bias + shift @ weight`.

    Layers may be stacked on a leading L axis. Layers without a BatchNorm stay as they are.
    """
    children = {name: fold(value) if isinstance(value, dict) else value for name, value in params.items()}
    if "bn" not in params and "bn_before" not in params:
        return children
    weight = np.asarray(params["weight"], np.float64)
    bias = np.asarray(params.get("bias", 0.0), np.float64)
    if "bn_before" in params:
        gain, shift = _affine(params["bn_before"])
        bias = bias + np.einsum("...i,...io->...o", shift, weight)
        weight = gain[..., :, None] * weight
    if "bn" in params:
        gain, shift = _affine(params["bn"])
        bias = bias * gain + shift
        # [L, K] -> [L, 1, ..., 1, K], as many axes as the weight has
        weight = weight * gain.reshape(gain.shape[:-1] + (1,) * (weight.ndim - gain.ndim) + gain.shape[-1:])
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def _affine(params: Params) -> tuple[Any, Any]:
    """The gain and the shift that a BatchNorm is at inference."""
    weight, bias, mean, var = (
        np.asarray(params[name], np.float64) for name in ("weight", "bias", "running_mean", "running_var")
    )
    gain = weight / np.sqrt(var + EPS)
    return gain, bias - mean * gain
