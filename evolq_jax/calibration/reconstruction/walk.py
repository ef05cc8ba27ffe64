"""The initialiser `brecq`: unit by unit in the order of the forward pass.

Each unit's output on what the quantized network feeds it is matched to the float network's output there,
as in BRECQ and QDrop. Units are every block, what leads into each segment, and the head, whose logits are
matched.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.calibration.link import Calibration, State
from evolq_jax.calibration.reconstruction.importance import importance
from evolq_jax.calibration.reconstruction.reconstruct import (
    Data,
    Learned,
    Problem,
    Theta,
    begin,
    decided,
    mini_batches,
    nearest,
    outputs,
    step,
    weighted_error,
)
from evolq_jax.calibration.reconstruction.units import (
    Unit,
    list_units,
    reads,
    unit_params,
    unit_qparams,
    unit_specs,
    write_back,
)
from evolq_jax.network.chunks import largest_divisor
from evolq_jax.quant.qparams import QParams
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array

REPORT_EVERY = 20  # steps


def reconstruct(calibration: Calibration, state: State) -> State:
    """Learns the rounding of all weights and the steps of all activations.

    Afterwards every quantized weight that the network reads lies on its grid: rounding to nearest at the
    scales gives the integers decided for. A unit whose output is no nearer to the float network's on
    the calibration images (all of them, all activations quantized) stays as it was.
    """
    parts, config = calibration.parts, calibration.brecq
    images = jnp.concatenate(list(calibration.batches))
    chunk = largest_divisor(len(images), calibration.chunk)
    units, key = list_units(parts), jax.random.key(calibration.seed)
    weights: list[Array | None] = [None] * len(units)
    if config.fisher:
        chunks = images.reshape(-1, chunk, *images.shape[1:])
        weights = [*importance(parts, state.reference, chunks, jax.random.fold_in(key, len(units)))]
    floating = quantized = images
    for number, (unit, index) in enumerate(units):
        problem, block = _problem(calibration, unit, state, floating), jnp.int32(index)
        data, learned = _start(problem, chunk, state, block, quantized, floating, weights[number])
        before, total = number * config.steps, len(units) * config.steps
        if problem.weights or problem.sites:
            unit_key, batch_key = jax.random.split(jax.random.fold_in(key, number))
            draws = mini_batches(len(images), min(config.batch_size, len(images)), config.steps, batch_key)
            for done in range(1, config.steps + 1):
                learned = step(problem, data, learned, draws[done - 1], jnp.int32(done), unit_key)
                if done % REPORT_EVERY == 0:
                    jax.block_until_ready(learned)
                    calibration.progress(before + done, total)
        state, quantized = _finish(problem, chunk, state, block, data, learned.theta)
        floating, weights[number] = data.wanted, None
        jax.block_until_ready(quantized)
        calibration.progress(before + config.steps, total)
    return state


def _problem(calibration: Calibration, unit: Unit, state: State, x: Array) -> Problem:
    """What there is to learn in a unit whose input is like `x`."""
    parts = calibration.parts
    specs = unit_specs(parts, unit, calibration.specs)
    found = reads(parts, unit, state.params, jax.ShapeDtypeStruct(x.shape, x.dtype))
    learnable = {name for name, spec in specs if spec.has_scale and spec.quantizer == "uniform"}
    return Problem(
        parts,
        unit,
        specs,
        tuple(name for name, _ in specs if name in found.params),
        tuple(name for name in found.sites if name in learnable) if calibration.brecq.step_rate else (),
        calibration.brecq,
    )


@partial(jax.jit, static_argnames=("problem", "chunk"))
def _start(
    problem: Problem,
    chunk: int,
    state: State,
    index: Array,
    quantized: Array,
    floating: Array,
    importance: Array | None,
) -> tuple[Data, Learned]:
    """What a unit's optimisation works with, and where it starts."""
    parts, unit = problem.parts, problem.unit
    params, qparams = (
        unit_params(parts, unit, state.params, index),
        unit_qparams(parts, unit, state.qparams, index),
    )
    reference = unit_params(parts, unit, state.reference, index)
    wanted = outputs(replace(problem, specs=()), chunk, reference, {}, floating)
    start = weighted_error(outputs(problem, chunk, params, qparams, quantized), wanted, importance)
    data = Data(params, qparams, quantized, floating, wanted, importance, start)
    return data, begin(problem, data)


@partial(jax.jit, static_argnames=("problem", "chunk"))
def _finish(
    problem: Problem, chunk: int, state: State, index: Array, data: Data, theta: Theta
) -> tuple[State, Array]:
    """The state with the unit's weights and scales decided, and its quantized output with them."""

    def output(changed: tuple[dict[str, Array], QParams]) -> Array:
        params = unflatten(flatten(data.params) | changed[0])
        return outputs(problem, chunk, params, data.qparams | changed[1], data.quantized)

    learned, start = decided(problem, data, theta), nearest(problem, data)
    better = weighted_error(output(learned), data.wanted, data.importance) < data.start
    kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), learned, start)
    return write_back(problem.parts, problem.unit, state, kept[0], kept[1], index), output(kept)
