"""Random parameters of a ViT, for training from scratch. Checkpoints are compared with their shapes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from evolq_jax.models.vit import ViTConfig, position_rows
from evolq_jax.typing import Array, Params

Layer = Callable[..., Params]  # (path, *shape) -> weight and bias


def init_params(key: Array, config: ViTConfig) -> Params:
    """Truncated normal 0.02, zero biases, tokens and tables, norms and gains that do nothing."""
    d, p = config.width, config.patch_size

    def layer(path: str, *shape: int) -> Params:
        subkey = jax.random.fold_in(key, sum(ord(c) * 31**i for i, c in enumerate(path)) % 2**31)
        weight = 0.02 * jax.random.truncated_normal(subkey, -2.0, 2.0, shape)
        return {"weight": weight, "bias": jnp.zeros((*shape[: len(shape) - 2], shape[-1]))}

    params: Params = {
        "patch_embed": {"proj": layer("patch_embed", p, p, config.channels, d) | {"bias": jnp.zeros(d)}},
        "blocks": _blocks(config, layer),
        "norm": _norm(d),
        "head": layer("head", d, config.num_classes),
    }
    tokens = {"cls_token": config.class_token, "dist_token": config.distilled, "reg_token": config.registers}
    params |= {name: jnp.zeros((1, number, d)) for name, number in tokens.items() if number}
    if config.positions != "none":
        params["pos_embed"] = layer("pos_embed", 1, config.num_positions, d)["weight"]
    if config.pre_norm:
        del params["patch_embed"]["proj"]["bias"]
        params["norm_pre"] = _norm(d)
    if config.distilled:
        params["head_dist"] = layer("head_dist", d, config.num_classes)
    if config.pool == "attention":
        params["attn_pool"] = {
            "latent": layer("latent", 1, 1, d)["weight"],
            "q": layer("pool_q", d, d),
            "kv": layer("pool_kv", d, 2 * d),
            "proj": layer("pool_proj", d, d),
            "norm": _norm(d),
            "mlp": {
                "fc1": layer("pool_fc1", d, config.mlp_width),
                "fc2": layer("pool_fc2", config.mlp_width, d),
            },
        }
    return params


def _blocks(config: ViTConfig, layer: Layer) -> Params:
    d, depth, hidden = config.width, config.depth, config.mlp_width
    attn: Params = {"qkv": layer("qkv", depth, d, 3 * d), "proj": layer("proj", depth, d, d)}
    mlp = {"fc1": layer("fc1", depth, d, hidden), "fc2": layer("fc2", depth, hidden, d)}
    if config.qkv_bias != "full":
        del attn["qkv"]["bias"]
    if config.qkv_bias == "qv":
        attn["qkv"] |= {"q_bias": jnp.zeros((depth, d)), "v_bias": jnp.zeros((depth, d))}
    if config.qk_norm:
        attn |= {name: _norm(depth, d // config.num_heads) for name in ("q_norm", "k_norm")}
    if config.relative_positions:
        table = jnp.zeros((depth, position_rows(config), config.num_heads))
        attn["relative_position_bias_table"] = table
    if config.layer_scale:
        for last in (attn["proj"], mlp["fc2"]):
            last["layer_scale"] = jnp.ones((depth, d))
    return {"norm1": _norm(depth, d), "attn": attn, "norm2": _norm(depth, d), "mlp": mlp}


def _norm(*shape: int) -> Params:
    return {"weight": jnp.ones(shape), "bias": jnp.zeros(shape)}
