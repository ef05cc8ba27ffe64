"""Runs of a network that differ in the last bits of its scales, and where another implementation falls.

A fully quantized ViT-Tiny is chaotic: one value that rounds the other way moves the next layer by a
fraction of a step, which makes other values round the other way, and twelve blocks later the logits
differ by more than half of their norm. Our own runs with every scale times 1 + 2e-7 agree on the top-1
of about 12 of 16 images at 8 bits and 8 at 4; float32 against float64 does no better. No two float
implementations can therefore agree logit for logit. What can be asked is that the other implementation
be one more such run: that its logits lie neither farther from ours nor closer than ours do among
themselves. An unmodelled difference moves the centre of the runs, and all other runs look too close.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from evolq_jax.network.parts import ModelParts
from evolq_jax.network.reading import Reading
from evolq_jax.network.run import forward
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.sites import SiteFactory, fake_quant_weights
from evolq_jax.quant.spec import Specs
from evolq_jax.typing import Array, Params

CHUNK = 4  # images: divides both sets, so that one program serves
STEP = 2e-7  # about one unit in the last place of float32


@partial(jax.jit, static_argnums=(0, 1))
def _chunk_logits(
    parts: ModelParts, make_site: SiteFactory, params: Params, qparams: QParams, x: Array
) -> Array:
    return forward(parts, Reading(make_site, params, qparams), x)


@partial(jax.jit, static_argnums=0)
def _network(specs: Specs, params: Params, qparams: QParams) -> Params:
    return fake_quant_weights(specs, params, qparams)


def logits(
    parts: ModelParts, make_site: SiteFactory, specs: Specs, params: Params, qparams: QParams, images: Array
) -> np.ndarray:
    """[B, C]; weights are quantized by `specs` (none: they stay in float)."""
    quantized = _network(specs, params, qparams)
    chunks = images.reshape(-1, CHUNK, *images.shape[1:])
    return np.concatenate([_chunk_logits(parts, make_site, quantized, qparams, x) for x in chunks])


def perturb(qparams: QParams, seed: int) -> QParams:
    """Every scale but the image's times 1 + 2e-7 times a normal number."""
    key = jax.random.key(seed)

    def changed(number: int, site_qparams: SiteQParams) -> SiteQParams:
        noise = jax.random.normal(jax.random.fold_in(key, number), site_qparams.scale.shape)
        return site_qparams._replace(scale=site_qparams.scale * (1.0 + STEP * noise))

    return {
        name: q if name == "image" else changed(number, q) for number, (name, q) in enumerate(qparams.items())
    }


def ensemble(run: Callable[[QParams], np.ndarray], qparams: QParams, count: int) -> np.ndarray:
    """Logits [count, B, C] of perturbed runs."""
    return np.stack([run(perturb(qparams, seed)) for seed in range(count)])


class Place(NamedTuple):
    """Where another run falls among K of ours, over all images.

    `rank`: the mean share of our runs that are closer to the centre of all the others than it is; 1/2
    if it is one of them, with standard deviation `deviation`. `spread`: its squared distance from that
    centre over the mean of ours; 1 if it is one of them.
    """

    rank: float
    deviation: float
    spread: float


def place(ours: np.ndarray, other: np.ndarray) -> Place:
    runs = np.concatenate([ours, other[None]]).astype(np.float64)
    count, num_images = len(ours), len(other)
    centre_of_others = (runs.sum(0) - runs) / count
    distance = np.linalg.norm(runs - centre_of_others, axis=-1)  # [K + 1, B]
    rank = np.mean(distance[:-1] < distance[-1])
    # of a uniform rank among 0, 1/K, ..., 1
    deviation = np.sqrt((count + 2) / count / 12 / num_images)
    spread = np.sum(distance[-1] ** 2) / np.mean(np.sum(distance[:-1] ** 2, axis=1))
    return Place(float(rank), float(deviation), float(spread))
