"""From a quantized network to integers."""

import jax
import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.integers.model import NOTHING, About, IntegerModel
from evolq_jax.integers.rounding import as_runtimes_round
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.quantizers import QUANTIZERS
from evolq_jax.quant.sites import encode_weights
from evolq_jax.quant.spec import Specs, with_codes
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.trees import flatten, unflatten


def integer_model(quantized: QuantizedNetwork, about: About | None = None) -> IntegerModel:
    """The integers of a quantized network.

    Args:
      quantized: calibrated, searched or loaded.
      about: what is known of it; None: nothing.

    Raises:
      UserError: a weight is no integer: the released code's bias correction stretched it, or its zero point
        or quantizer is of another kind.
    """
    weights = {name for name, info in quantized.network.sites.items() if info.is_weight}
    _check(quantized.specs, quantized.qparams, weights)
    rounded = tuple((name, spec) for name, spec in quantized.specs if name in weights and not spec.codes)
    coded = encode_weights(with_codes(rounded, weights), quantized.params, quantized.qparams)
    leaves = flatten(coded)
    for name, spec in quantized.specs:
        if name in weights:
            leaves[name] = _as_integers(name, leaves[name], signed=spec.signed)
    network, specs = quantized.network, as_runtimes_round(with_codes(quantized.specs, weights))
    return IntegerModel(
        network.parts,
        unflatten(leaves),
        quantized.qparams,
        specs,
        network.preprocessing,
        network.name,
        network.config,
        network.precision,
        about or NOTHING,
    )


def _check(specs: Specs, qparams: QParams, weights: set[str]) -> None:
    for name, spec in specs:
        if spec.bias_correction:
            raise UserError(
                f"'{name}' is stretched by the released code's bias correction, so it lies on no grid of "
                "integers: set quant.bias_correction off, and use the chain's link 'bias'"
            )
        if spec.quantizer not in QUANTIZERS.values():
            raise UserError(f"'{name}' has a quantizer of your own, which no other runtime knows")
        if name in weights:
            zero_point = np.asarray(qparams[name].zero_point)
            if not spec.quantizer.equal_steps or (zero_point != np.round(zero_point)).any():
                raise UserError(f"'{name}' has no whole zero points, so it lies on no grid of integers")


def _as_integers(name: str, codes: jax.Array, *, signed: bool) -> jax.Array:
    """Codes that are held as float32, in a byte each."""
    found = np.asarray(codes)
    integers = found.astype(np.int8 if signed else np.uint8)
    if (integers != found).any():
        raise UserError(f"the codes of '{name}' are no integers of 8 bits: calibrate again")
    return jax.device_put(integers)
