"""The work of a search's parts, counted from their traces: calibration, and the networks' forward passes."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.link import State
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.devices.work import Work, count_work
from evolq_jax.network.chunks import usual_batch
from evolq_jax.network.network import Network
from evolq_jax.network.reading import Reading, float_reading, quantized_reading
from evolq_jax.network.run import forward
from evolq_jax.network.walk import block_inputs
from evolq_jax.pipeline.load import Setup
from evolq_jax.quant.qparams import QParams
from evolq_jax.quantized.calibrate import LARGEST_BATCH
from evolq_jax.typing import Array, Params


class InputBytes(NamedTuple):
    """The inputs of blocks for one image, in float32."""

    every: int  # of all blocks
    largest: int


class Traced(NamedTuple):
    """What a search's programs do and take, as far as memory asks."""

    calibration: Work
    quantized: Work  # one image through the quantized network
    inputs: InputBytes


def trace(setup: Setup, num_images: int) -> Traced:
    """Counts without compiling. A run that follows traces calibration no second time."""
    quantized = forward_work(setup, 1, quantized=True)
    return Traced(calibration_work(setup, num_images), quantized, input_bytes(setup.model))


def calibration_work(setup: Setup, num_images: int) -> Work:
    """The work of the chain's links, but for those that know their own cost.

    A link that looks at its arrays' values cannot be traced. Then nothing is counted.
    """
    config, model = setup.config.calibration, setup.model
    size = config.batch_size or usual_batch(num_images, LARGEST_BATCH)
    batch = jax.ShapeDtypeStruct((size, *model.image_shape), jnp.float32)

    def run(params: Params, batches: list[Array]) -> State:
        return calibrate(
            model.parts,
            setup.specs,
            params,
            batches,
            sites=setup.sites,
            qparams=setup.blank_qparams,
            chain=[link for link in config.links if link.cost is None],
            chunk=config.image_chunk,
        )

    with matmul_precision(setup.config.precision):
        try:
            return count_work(run, model.params, [batch] * (num_images // size))
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
            return Work()


def forward_work(setup: Setup, num_images: int, *, quantized: bool) -> Work:
    """The work of one forward pass of images that run at once."""
    images = jax.ShapeDtypeStruct((num_images, *setup.model.image_shape), jnp.float32)

    def reading(params: Params, qparams: QParams) -> Reading:
        return quantized_reading(setup.specs, params, qparams) if quantized else float_reading(params)

    def run(params: Params, qparams: QParams, images: Array) -> Array:
        return forward(setup.model.parts, reading(params, qparams), images)

    program: Callable[..., Array] = jax.jit(run)
    with matmul_precision(setup.config.precision):
        return count_work(program, setup.model.params, jax.eval_shape(lambda: setup.blank_qparams), images)


def input_bytes(model: Network) -> InputBytes:
    """What the inputs of blocks take."""
    parts = model.parts

    def inputs(params: Params, image: Array) -> dict[str, Array]:
        reading = float_reading(params)
        tokens = parts.segments[0].enter(params, reading.outside, image)
        return block_inputs(parts, reading, tokens, chunk=1)

    image = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.float32)
    shapes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(inputs, model.params, image))]
    largest = max(4 * math.prod(shape[1:]) for shape in shapes)
    return InputBytes(sum(4 * math.prod(shape) for shape in shapes), largest)
