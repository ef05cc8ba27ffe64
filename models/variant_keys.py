"""The keys of what variants of ViTs have beside the plain one, or lack. All names are timm's.

The other layouts of `convert_vit` are for plain ViTs. A variant expects these keys of their files too, so a
file without them is refused with their names.
"""

from evolq_jax.models.convert import LINEAR, Rule
from evolq_jax.models.vit import ViTConfig

_HEAD_NORMS = ("blocks/attn/q_norm", "blocks/attn/k_norm")
_POOL_LINEARS = tuple(f"attn_pool/{name}" for name in ("q", "kv", "proj", "mlp/fc1", "mlp/fc2"))


def absent(config: ViTConfig) -> set[str]:
    """The leaves of a plain ViT that a variant lacks, or has under another key."""
    leaves = {
        "cls_token": not config.class_token,
        "pos_embed": config.positions == "none",
        "patch_embed/proj/bias": config.pre_norm,
        "blocks/attn/qkv/bias": config.qkv_bias != "full",
    }
    return {leaf for leaf, lacks in leaves.items() if lacks}


def variant_rules(config: ViTConfig) -> dict[str, Rule]:
    """The leaves that a plain ViT lacks, and those with another key."""
    beit = config.qkv_bias == "qv"
    rules: dict[str, Rule] = {}
    if config.registers:
        rules["reg_token"] = Rule(("reg_token",))
    if config.pre_norm:
        rules |= _affine("norm_pre", "norm_pre")
    if config.norm_pooled:
        rules |= _affine("norm", "fc_norm")
    if beit:
        rules |= {f"blocks/attn/qkv/{n}_bias": Rule((f"blocks.{{}}.attn.{n}_bias",)) for n in ("q", "v")}
    if config.qk_norm:
        for path in _HEAD_NORMS:
            rules |= _affine(path, path.replace("/", ".").replace("blocks", "blocks.{}"))
    if config.relative_positions:
        name = "relative_position_bias_table"
        rules[f"blocks/attn/{name}"] = Rule((f"blocks.{{}}.attn.{name}",))
    if config.layer_scale:
        for number, layer in ((1, "attn/proj"), (2, "mlp/fc2")):
            gain = f"gamma_{number}" if beit else f"ls{number}.gamma"
            rules[f"blocks/{layer}/layer_scale"] = Rule((f"blocks.{{}}.{gain}",))
    if config.pool == "attention":
        rules |= {"attn_pool/latent": Rule(("attn_pool.latent",))} | _affine(
            "attn_pool/norm", "attn_pool.norm"
        )
        for path in _POOL_LINEARS:
            key = path.replace("/", ".")
            rules |= {
                f"{path}/weight": Rule((f"{key}.weight",), LINEAR),
                f"{path}/bias": Rule((f"{key}.bias",)),
            }
    return rules


def _affine(path: str, key: str) -> dict[str, Rule]:
    return {f"{path}/{leaf}": Rule((f"{key}.{leaf}",)) for leaf in ("weight", "bias")}
