"""The official code's quantizers under our names, and its setting."""

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.quant.qparams import QParams, SiteQParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, Resolved
from evolq_jax.typing import SiteInfo

DEPTH = 12
FILES = {"w8a8_bc1": 8, "w4a8_bc1": 4, "w4a8_bc0": 4, "w3a8_bc1": 3, "w3a8_bc0": 3}  # name: weight bits

INSIDE = {
    "norm1": "qact1", "attn/qkv": "attn.qact1", "attn/logits": "attn.qact_attn1",
    "attn/softmax": "attn.log_int_softmax", "attn/context": "attn.qact2", "attn/proj": "attn.qact3",
    "residual_mid": "qact2", "norm2": "qact3", "mlp/gelu": "mlp.qact1", "mlp/fc2": "mlp.qact2",
}  # fmt: skip
OUTSIDE = {
    "image": "qact_input", "patch_embed/proj": "patch_embed.qact", "tokens": "qact_embed",
    "pos_embed": "qact_pos", "norm": "qact2", "head": "act_out", "residual_out": "blocks.11.qact4",
}  # fmt: skip


def config(name: str) -> QuantConfig:
    """The setting in which a file was recorded."""
    return QuantConfig(
        scheme="fully_quantized", weight_bits=FILES[name], edge_weight_bits=None, weight_observer="minmax",
        activation_observer="omse", residual_observer="ptf", integer_layer_norm=True,
        bias_correction=name.endswith("bc1"), quantize_image=True,
    )  # fmt: skip


def names(site: str) -> list[str]:
    """The official module of a site; of a stacked site, one for each block.

    What a block receives (`residual_in`) is the official code's end of the block before.
    """
    if not site.startswith("blocks/"):
        return [OUTSIDE.get(site, site.removesuffix("/weight").replace("/", "."))]
    local = site.removeprefix("blocks/")
    if local == "residual_in":
        return ["qact1", *(f"blocks.{i}.qact4" for i in range(DEPTH - 1))]
    module = INSIDE.get(local, local.removesuffix("/weight").replace("/", "."))
    return [f"blocks.{i}.{module}" for i in range(DEPTH)]


def recorded(golden: dict[str, np.ndarray], site: str, part: str) -> np.ndarray:
    """`scale` or `zero_point` of a site: [values], of a stacked site [L, values]."""
    found = [golden[f"{name}.{part}"].ravel() for name in names(site)]
    return np.stack(found) if site.startswith("blocks/") else found[0]


def recorded_qparams(
    golden: dict[str, np.ndarray], resolved: Resolved, sites: dict[str, SiteInfo]
) -> QParams:
    """The official code's calibration in our form."""

    def one(site: str, part: str) -> jax.Array:
        values = recorded(golden, site, part)
        lead = values.shape[:-1]
        ones = [1] * (len(sites[site].shape) - 1)
        return jnp.asarray(values.reshape(*lead, *ones, values.shape[-1]), jnp.float32)

    blank = blank_qparams(*resolved, sites)
    return {
        site: SiteQParams(one(site, "scale"), one(site, "zero_point"), blank[site].bits)
        for site, _ in resolved.specs
    }
