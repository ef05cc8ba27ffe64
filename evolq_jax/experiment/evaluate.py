"""Logits of a network over many images, in bounded memory, and what they say."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from evolq_jax.data import batches
from evolq_jax.experiment.setup import Setup
from evolq_jax.experiment.watch import Progress, Watcher, no_progress
from evolq_jax.mesh import AXES, put_rows, replicate, spread
from evolq_jax.metrics import Scores, paired_delta, score, summary
from evolq_jax.network import forward, normalize
from evolq_jax.quant.sites import fake_quant_weights, integer_norm_sites, quant_sites
from evolq_jax.quant.spec import Specs
from evolq_jax.typing import Array, Images, ModelParts, Params, Preprocessing, Scales


@partial(jax.jit, static_argnames=("parts", "specs", "preprocessing", "integer_norm_only", "mesh"))
def _batch_logits(
    parts: ModelParts,
    specs: Specs,
    preprocessing: Preprocessing,
    integer_norm_only: bool,
    params: Params,
    scales: Scales,
    pixels: Array,
    mesh: Mesh | None,
) -> Array:
    make_site = integer_norm_sites(specs) if integer_norm_only else quant_sites(specs)

    def on_device(params: Params, scales: Scales, pixels: Array) -> Array:
        logits = forward(parts, make_site, params, scales, normalize(preprocessing, pixels))
        return logits if mesh is None else jax.lax.all_gather(logits, AXES, tiled=True)

    return spread(mesh, on_device, (P(), P(), P(AXES)), P())(params, scales, pixels)


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
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Logits [B, C] of uint8 images [B, height, width, channels]; `specs=()` is the float network.

    The last batch is padded and its padding dropped. With a mesh, `batch_size` images run on each of its
    devices. `integer_norm_only` gives the released code's teacher: float weights and activations, integer
    LayerNorm.
    """
    params, scales = replicate(mesh, (params, scales))
    if not integer_norm_only:
        params = quantize_weights(specs, params, scales)
    rows: list[np.ndarray] = []
    done = 0

    def collect(logits: Array, mask: np.ndarray) -> None:
        nonlocal done
        rows.append(np.asarray(logits)[mask])  # waits for the device
        done += int(mask.sum())
        progress(done, len(pixels))

    running: tuple[Array, np.ndarray] | None = None
    num_devices = 1 if mesh is None else mesh.size
    size = min(batch_size, math.ceil(len(pixels) / num_devices)) * num_devices
    for batch, mask in batches(pixels, size):
        images = jnp.asarray(batch) if mesh is None else put_rows(mesh, AXES, batch)
        settings = parts, specs, preprocessing, integer_norm_only
        logits = _batch_logits(*settings, params, scales, images, mesh)
        if running is not None:  # one batch behind: the next is read from disk while the device works
            collect(*running)
        running = logits, mask
    if running is not None:
        collect(*running)
    return np.concatenate(rows)


def score_networks(
    setup: Setup, params: Params, networks: Mapping[str, Scales], evaluation: Images, watcher: Watcher
) -> dict[str, Any]:
    """Scores of the float network and of `params` at each of the scales, and `final - init`.

    Args:
      setup: the float network and the quantizers.
      params: float parameters that the scales are for (after calibration's chain).
      networks: `init` and, after a search, `final`.
      evaluation: images, with or without labels.
      watcher: told of each network.
    """
    parts, preprocessing = setup.model.parts, setup.model.preprocessing

    def logits(name: str, specs: Specs, params: Params, scales: Scales) -> np.ndarray:
        batch, progress = setup.config.evaluation_batch, watcher.stage(f"evaluating {name}")
        network = parts, specs, preprocessing, params, scales
        return compute_logits(*network, evaluation.pixels, batch, progress, mesh=setup.mesh)

    teacher = logits("float", (), setup.model.params, {})
    scores: dict[str, Scores] = {"float": score(teacher, teacher, evaluation.labels)}
    for name, scales in networks.items():
        scores[name] = score(logits(name, setup.specs, params, scales), teacher, evaluation.labels)
    result: dict[str, Any] = {name: summary(value) for name, value in scores.items()}
    if "final" in scores:
        result["delta"] = paired_delta(scores["init"], scores["final"], setup.config.seed)
    return result
