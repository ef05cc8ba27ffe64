"""What an ONNX file cannot express, and what to choose instead."""

import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.integers.model import ActivationQuantizer, IntegerModel
from evolq_jax.integers.onnx.build import Target


def check(model: IntegerModel, target: Target, *, allow_float: bool) -> tuple[str, ...]:
    """Refuses a model that the target cannot run as it is.

    Args:
      model: the model.
      target: what will run the file.
      allow_float: whether products of logarithmic and twin codes may run in float.

    Returns:
      The sites whose products will do so.

    Raises:
      UserError: the first site that cannot be expressed, and what to choose instead.
    """
    specs, in_float = dict(model.specs), list[str]()
    for name, site in model.activations.items():
        if site.integer_op:
            raise UserError(_integer_op(name, "softmax" in model.sites[name].roles))
        if not specs[name].quantizer.equal_steps:
            if not allow_float:
                raise UserError(_not_uniform(name, site))
            in_float.append(name)
            continue
        _check_uniform(name, site)
        if target == "tensorrt" and (not site.signed or site.zero_point.any()):
            raise UserError(
                f"'{name}' has a zero point, and TensorRT has none: calibrate with quant.signed_activations, "
                "or export for the target onnxruntime"
            )
    for name, weight in model.weights.items():
        if target == "tensorrt" and not weight.signed:
            raise UserError(
                f"'{name}' has zero points, and TensorRT has none: calibrate with quant.signed_weights, or "
                "export for the target onnxruntime"
            )
    return tuple(in_float)


def _integer_op(name: str, softmax: bool) -> str:
    what = "softmax" if softmax else "LayerNorm"
    return (
        f"'{name}' is a {what} in integers, for which ONNX has no operator: calibrate with quant.scheme "
        "deploy, or export as stablehlo"
    )


def _not_uniform(name: str, site: ActivationQuantizer) -> str:
    return (
        f"'{name}' has the quantizer '{site.kind}', whose codes no ONNX runtime multiplies: calibrate with "
        "quant.scheme deploy, allow these products in float with --allow-float, or export as stablehlo"
    )


def _check_uniform(name: str, site: ActivationQuantizer) -> None:
    if site.scale.shape[-1:] != (1,) and site.scale.ndim:
        raise UserError(
            f"'{name}' has a scale for each channel, with which ONNX runtimes multiply in float: calibrate "
            "with quant.scheme deploy, or export as stablehlo"
        )
    if (site.zero_point != np.round(site.zero_point)).any():
        raise UserError(f"'{name}' has no whole zero point, so it lies on no grid of integers")
