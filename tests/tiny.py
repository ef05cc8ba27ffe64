"""A vision transformer small enough for seconds, with weights and images from numpy's generator."""

from functools import cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from evolq_jax.models.vit import ViTConfig, make_vit
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.run import normalize
from evolq_jax.network.sites import list_sites
from evolq_jax.typing import Array, Params, Preprocessing, SiteInfo

NUM_CLASSES = 10
PREPROCESSING = Preprocessing(size=16, resize=None)


class Tiny(NamedTuple):
    config: ViTConfig
    parts: ModelParts
    params: Params
    pixels: Array  # uint8 [12, 16, 16, 3]
    images: Array  # the same, normalised
    sites: dict[str, SiteInfo]


@cache
def make_tiny(depth: int = 3, seed: int = 0) -> Tiny:
    """Width 32, 5 tokens, 2 heads; weights of about unit gain, so that every layer matters."""
    config = ViTConfig(
        image_size=16, patch_size=8, width=32, depth=depth, num_heads=2, mlp_width=64, num_classes=NUM_CLASSES
    )
    rng = np.random.default_rng(seed)

    def normal(*shape: int, std: float = 1.0) -> Array:
        return jnp.asarray(std * rng.standard_normal(shape), jnp.float32)

    def linear(*shape: int) -> Params:
        fan_in = np.prod(shape[:-1]) if len(shape) == 4 else shape[-2]
        bias = (*shape[: len(shape) - 2], shape[-1]) if len(shape) == 3 else shape[-1:]
        return {"weight": normal(*shape, std=float(fan_in) ** -0.5), "bias": normal(*bias, std=0.1)}

    def norm(*lead: int) -> Params:
        return {"weight": 1.0 + normal(*lead, 32, std=0.2), "bias": normal(*lead, 32, std=0.1)}

    params = {
        "patch_embed": {"proj": linear(8, 8, 3, 32)},
        "cls_token": normal(1, 1, 32, std=0.3),
        "pos_embed": normal(1, 5, 32, std=0.3),
        "blocks": {
            "norm1": norm(depth),
            "attn": {"qkv": linear(depth, 32, 96), "proj": linear(depth, 32, 32)},
            "norm2": norm(depth),
            "mlp": {"fc1": linear(depth, 32, 64), "fc2": linear(depth, 64, 32)},
        },
        "norm": norm(),
        "head": linear(32, NUM_CLASSES),
    }
    pixels = jnp.asarray(rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8))
    parts = make_vit(config)
    sites = list_sites(parts, params, (16, 16, 3))
    return Tiny(config, parts, params, pixels, normalize(PREPROCESSING, pixels), sites)
