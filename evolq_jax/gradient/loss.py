"""The fitness of a quantized network as a function of scales, with straight-through gradients."""

from functools import partial
from typing import NamedTuple

import jax

from evolq_jax.gradient.problem import Data, ScaleLoss
from evolq_jax.gradient.theta import Theta, decode
from evolq_jax.network.chunks import in_chunks
from evolq_jax.network.reading import Reading, quantized_reading
from evolq_jax.network.run import scan_blocks
from evolq_jax.objective.objective import Outputs
from evolq_jax.quant.gradients import lsq_scaled
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import fake_quant_weights
from evolq_jax.typing import Array, Params

STACKED_KERNEL = 5  # the number of axes of stacked kernels: [L, height, width, in, out]


class Student(NamedTuple):
    """The arrays of the quantized network."""

    weights: Params  # the parameters, fake-quantized
    qparams: QParams


def straight_through_network(loss: ScaleLoss, data: Data, theta: Theta) -> Student:
    """The quantized network at `theta`. Rounding passes gradients straight through."""
    qparams = lsq_scaled(loss.specs, loss.sharing, decode(loss, theta, data.start))
    return Student(fake_quant_weights(loss.specs, data.params, qparams), qparams)


def straight_through_outputs(loss: ScaleLoss, student: Student, x: Array) -> Outputs:
    """The outputs of the quantized network on images at the first segment's entry [B, ...].

    All images run at once. The outputs have reverse gradients to the student.
    """
    parts, quantized = loss.parts, quantized_reading(loss.specs, student.weights, student.qparams)

    def logits(reading: Reading) -> Array:
        params, y = reading.params, x
        for number, segment in enumerate(parts.segments):
            y = segment.enter(params, reading.outside, y) if number else y
            y, _ = scan_blocks(segment, reading, y, unroll=loops_are_slow(params[segment.name]))
        return parts.head(params, reading.outside, y)

    return loss.objective.outputs(parts, quantized, logits)


def loops_are_slow(blocks: Params) -> bool:
    """Whether a loop over these stacked blocks would have a slow gradient.

    XLA's CPU backend runs gradients of convolutions inside loops tens of times slower than outside
    (`benchmarks/descent.py`). Without a loop, each block is compiled on its own. That takes longer, and pays
    for convolutions only.
    """
    has_kernels = any(leaf.ndim == STACKED_KERNEL for leaf in jax.tree.leaves(blocks))
    return has_kernels and jax.default_backend() == "cpu"


def straight_through_loss(loss: ScaleLoss, data: Data, theta: Theta, images: Array) -> Array:
    """The fitness [] on some images, with straight-through gradients, as one program.

    SPSA and line searches need one program, so a loop runs over chunks of images. The backward pass runs each
    chunk again, so memory is that of one chunk. `gradient.chunks` gives the same without a loop.

    Args:
      loss: what descends.
      data: the arrays of the descent.
      theta: where the fitness is taken.
      images: the indices [b] of the images.
    """
    student = straight_through_network(loss, data, theta)
    one_chunk = partial(jax.checkpoint(partial(straight_through_outputs, loss)), student)
    outputs = in_chunks(one_chunk, data.tokens[images], loss.image_chunk)
    return loss.objective(outputs, data.teacher.rows(images), data.temperature)
