"""Logits of a network over many images, in bounded memory, and what they say."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.data import batches
from evolq_jax.network import forward, normalize
from evolq_jax.quant.sites import fake_quant_weights, integer_norm_sites, quant_sites
from evolq_jax.quant.spec import Specs
from evolq_jax.typing import Array, ModelParts, Params, Preprocessing, Scales

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Tells nobody."""
    del done, total


@partial(jax.jit, static_argnames=("parts", "specs", "preprocessing", "integer_norm_only"))
def _batch_logits(
    parts: ModelParts,
    specs: Specs,
    preprocessing: Preprocessing,
    integer_norm_only: bool,
    params: Params,
    scales: Scales,
    pixels: Array,
) -> Array:
    make_site = integer_norm_sites(specs) if integer_norm_only else quant_sites(specs)
    return forward(parts, make_site, params, scales, normalize(preprocessing, pixels))


@partial(jax.jit, static_argnames=("specs",))
def quantize_weights(specs: Specs, params: Params, scales: Scales) -> Params:
    """`fake_quant_weights`, compiled."""
    return fake_quant_weights(specs, params, scales)


def compute_logits(
    parts: ModelParts,
    specs: Specs,
    preprocessing: Preprocessing,
    params: Params,
    scales: Scales,
    pixels: np.ndarray,
    batch_size: int,
    progress: Progress = no_progress,
    *,
    integer_norm_only: bool = False,
) -> np.ndarray:
    """Logits [B, C] of uint8 images [B, height, width, channels]; `specs=()` is the float network.

    The last batch is padded and its padding dropped. `integer_norm_only` gives the released code's
    teacher: float weights and activations, integer LayerNorm.
    """
    if not integer_norm_only:
        params = quantize_weights(specs, params, scales)
    rows: list[np.ndarray] = []
    done = 0
    for batch, mask in batches(pixels, min(batch_size, len(pixels))):
        logits = _batch_logits(
            parts, specs, preprocessing, integer_norm_only, params, scales, jnp.asarray(batch)
        )
        rows.append(np.asarray(logits)[mask])
        done += int(mask.sum())
        progress(done, len(pixels))
    return np.concatenate(rows)
