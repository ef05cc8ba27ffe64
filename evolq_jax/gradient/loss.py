"""The fitness of a quantized network as a function of scales, with straight-through gradients."""

from functools import partial

import jax

from evolq_jax.gradient.problem import Data, ScaleLoss
from evolq_jax.gradient.theta import Theta, decode
from evolq_jax.network.chunks import in_chunks
from evolq_jax.network.run import scan_blocks
from evolq_jax.objective.objective import Outputs
from evolq_jax.quant.gradients import lsq_scaled
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import SiteFactory, fake_quant_weights, quant_sites
from evolq_jax.typing import Array, Params

STACKED_KERNEL = 5  # axes of the kernels of several blocks: [L, height, width, in, out]


def straight_through_network(loss: ScaleLoss, data: Data, theta: Theta) -> tuple[Params, QParams]:
    """The quantized network's weights and scales, with straight-through gradients to `theta`."""
    qparams = lsq_scaled(loss.specs, loss.sharing, decode(loss, theta, data.start))
    return fake_quant_weights(loss.specs, data.params, qparams), qparams


def straight_through_outputs(loss: ScaleLoss, params: Params, qparams: QParams, x: Array) -> Outputs:
    """What that network makes of images at the first segment's entry [B, ...]: all run at once."""
    parts = loss.parts

    def logits(make_site: SiteFactory) -> Array:
        outer, y = make_site("", qparams), x
        for number, segment in enumerate(parts.segments):
            y = segment.enter(params, outer, y) if number else y
            unroll = loops_are_slow(params[segment.name])
            y, _ = scan_blocks(segment, make_site, params, qparams, y, unroll=unroll)
        return parts.head(params, outer, y)

    return loss.objective.outputs(parts, quant_sites(loss.specs), logits)


def loops_are_slow(blocks: Params) -> bool:
    """Whether a loop over these stacked blocks would have a slow gradient.

    XLA's CPU backend runs gradients of convolutions inside loops tens of times slower than outside
    (`benchmarks/descent.py`). Without a loop every block is compiled, which only these are worth.
    """
    has_kernels = any(leaf.ndim == STACKED_KERNEL for leaf in jax.tree.leaves(blocks))
    return has_kernels and jax.default_backend() == "cpu"


def straight_through_loss(loss: ScaleLoss, data: Data, theta: Theta, images: Array) -> Array:
    """The fitness on the images of these indices [B], with straight-through gradients.

    Chunks of images are run again in the backward pass, so that memory is one chunk's. They are a loop in one
    program, for SPSA and line searches, which need one; `gradient.chunks` has the same without.
    """
    network = straight_through_network(loss, data, theta)
    one_chunk = partial(jax.checkpoint(partial(straight_through_outputs, loss)), *network)
    outputs = in_chunks(one_chunk, data.tokens[images], loss.image_chunk)
    return loss.objective(outputs, data.teacher.rows(images), data.temperature)
