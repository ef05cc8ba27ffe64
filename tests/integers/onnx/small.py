"""Small networks of every family as integer models, made without calibration."""

from functools import cache

import jax.numpy as jnp
import numpy as np

from evolq_jax.integers.build import integer_model
from evolq_jax.integers.model import IntegerModel
from evolq_jax.network.network import Network
from evolq_jax.quant.qparams import QParams, SiteQParams, blank_qparams, with_bits
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.trees import flatten
from tests.families import ENTRIES, TRANSFORMERS, make_small

REACH = 4.0  # activations of these networks are about one


@cache
def network_of(name: str) -> Network:
    small, entry = make_small(name), ENTRIES[name]
    return Network(small.parts, small.params, entry.preprocessing, name, entry.config)


@cache
def small_model(
    name: str, quant: QuantConfig, bits: tuple[tuple[str, tuple[int, ...]], ...] = ()
) -> IntegerModel:
    """Weights up to their highest value; activations between -REACH and REACH. `bits` are those of blocks."""
    network = network_of(name)
    specs, widths = resolve(quant, network.sites)
    blanks = blank_qparams(specs, widths, network.sites)
    blanks = with_bits(blanks, {site: np.array(by_block) for site, by_block in bits})
    leaves, qparams = flatten(network.params), QParams()
    for site, blank in blanks.items():
        signed, levels = dict(specs)[site].signed, 2 ** np.asarray(blank.bits) - 1
        if network.sites[site].is_weight:
            axes = tuple(axis for axis, size in enumerate(blank.scale.shape) if size == 1)
            scale = 2 * np.abs(leaves[site]).max(axes, keepdims=True) / levels
            zero_point = 0 * scale if signed else (levels + 1) / 2
        elif "softmax" in network.sites[site].roles and not signed:
            scale, zero_point = 1 / levels, 0 * levels
        elif name not in TRANSFORMERS and "/act" in f"/{site}" and not signed:  # after a ReLU, or one up to 6
            scale, zero_point = 6 * np.float32(1 / levels), 0 * levels
        else:
            scale, zero_point = 2 * REACH / levels, 0 * levels if signed else (levels + 1) / 2
        scale, zero_point = (jnp.full(blank.scale.shape, each, jnp.float32) for each in (scale, zero_point))
        qparams[site] = SiteQParams(scale, zero_point, blank.bits)
    return integer_model(QuantizedNetwork(network, network.params, qparams, specs))
