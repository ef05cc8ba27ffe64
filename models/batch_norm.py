"""BatchNorm at inference, and how a layer takes in what only scales and shifts beside it.

Files hold these as layers of their own. Our parameter trees hold them as children of a convolution or linear
layer:

- `bn`, a BatchNorm of the layer's output, or `bn_before`, one of its input;
- `layer_scale` [K], a gain of each output (CaiT, 2103.17239);
- `q_bias` and `v_bias`, the bias of a fused query, key and value layer whose keys have none (BEiT).

Networks run with and without these children. We quantize the folded weights, because a quantized network
computes with them.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from evolq_jax.typing import Array, Params

CHILDREN = frozenset({"bn", "bn_before", "layer_scale", "q_bias"})
EPS = 1e-5  # PyTorch's default, which all networks here were trained with


def batch_norm(params: Params, x: Array) -> Array:
    """`(x - running_mean) / sqrt(running_var + eps) * weight + bias` over the last axis of [..., K]."""
    gain = params["weight"] / (params["running_var"] + EPS) ** 0.5
    return x * gain + (params["bias"] - params["running_mean"] * gain)


def fold(params: Params) -> Params:
    """A tree without these children that computes the same function. Folding runs in float64, in numpy.

    With `gain = weight_bn / sqrt(running_var + eps)` and `shift = bias_bn - running_mean * gain`:

    - after a layer: `weight * gain` (per output channel), `bias * gain + shift`;
    - before one: `gain[:, None] * weight`, `bias + shift @ weight`.

    Layers may be stacked on a leading L axis. Layers without such children stay as they are, but a fused
    `qkv` without a bias gets one of zeros, because calibration corrects it.
    """
    children = {name: fold(value) if isinstance(value, dict) else value for name, value in params.items()}
    if "qkv" in params and "bias" not in children["qkv"]:
        weight = children["qkv"]["weight"]
        children["qkv"]["bias"] = np.zeros((*weight.shape[:-2], weight.shape[-1]), np.float32)
    if not CHILDREN & params.keys():
        return children
    weight = np.asarray(params["weight"], np.float64)
    bias = np.asarray(qv_bias(params) if "q_bias" in params else params.get("bias", 0.0), np.float64)
    if "bn_before" in params:
        gain, shift = _affine(params["bn_before"])
        bias = bias + np.einsum("...i,...io->...o", shift, weight)
        weight = gain[..., :, None] * weight
    for gain, shift in _after(params):
        bias = bias * gain + shift
        # [L, K] -> [L, 1, ..., 1, K], as many axes as the weight has
        weight = weight * gain.reshape(gain.shape[:-1] + (1,) * (weight.ndim - gain.ndim) + gain.shape[-1:])
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}


def qv_bias(params: Params) -> Array:
    """The bias [..., 3 D] of a fused query, key and value layer whose keys have none."""
    q, v = params["q_bias"], params["v_bias"]
    return jnp.concatenate([q, jnp.zeros_like(q), v], axis=-1)


def _after(params: Params) -> list[tuple[Any, Any]]:
    """The gains and shifts of a layer's output, in order."""
    found = [_affine(params["bn"])] if "bn" in params else []
    return (
        [*found, (np.asarray(params["layer_scale"], np.float64), 0.0)] if "layer_scale" in params else found
    )


def _affine(params: Params) -> tuple[Any, Any]:
    """The gain and the shift that a BatchNorm is at inference."""
    weight, bias, mean, var = (
        np.asarray(params[name], np.float64) for name in ("weight", "bias", "running_mean", "running_var")
    )
    gain = weight / np.sqrt(var + EPS)
    return gain, bias - mean * gain
