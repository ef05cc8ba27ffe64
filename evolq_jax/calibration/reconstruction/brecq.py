"""The link `brecq`: reconstructs unit by unit, in the order of the forward pass.

A unit gets the inputs that the quantized network feeds it. Its output is matched to the float network's
output at this place, as in BRECQ and QDrop. Units are every block, what leads into each segment, and the
head. For the head the logits are matched.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.calibration.link import Calibration, Cost, NetworkLink, NotAfter, State
from evolq_jax.calibration.reconstruction.config import BrecqConfig
from evolq_jax.calibration.reconstruction.importance import importance
from evolq_jax.calibration.reconstruction.reconstruct import (
    Draw,
    Learned,
    Theta,
    UnitData,
    UnitInput,
    UnitProblem,
    begin,
    decided,
    learn,
    mini_batches,
    nearest,
    outputs,
    weighted_error,
)
from evolq_jax.calibration.reconstruction.units import (
    Decided,
    Unit,
    Values,
    list_units,
    reads,
    unit_params,
    unit_qparams,
    unit_sites,
    unit_specs,
    write_back,
)
from evolq_jax.network.chunks import largest_divisor
from evolq_jax.network.parts import ModelParts
from evolq_jax.quant.gradients import elements_sharing
from evolq_jax.quant.spec import Specs
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array

REPORT_EVERY = 20  # steps
STEP = 4  # forward passes that a step takes for each of its images


def brecq(calibration: Calibration, state: State, settings: BrecqConfig) -> State:
    """Learns the rounding of all weights and the steps of all activations.

    Afterwards every quantized weight that the network reads lies on its grid. Rounding it to nearest, at its
    scale, gives the decided integers. A unit stays as it was if its output comes no nearer to the float
    network's on all calibration images, with all activations quantized.
    """
    parts = calibration.parts
    images = jnp.concatenate(list(calibration.batches))
    calibration = calibration._replace(chunk=largest_divisor(len(images), calibration.chunk))
    units, key = list_units(parts), jax.random.key(calibration.seed)
    weights: list[Array | None] = [None] * len(units)
    if settings.fisher:
        chunks = images.reshape(-1, calibration.chunk, *images.shape[1:])
        weights = [*importance(parts, state.reference, chunks, jax.random.fold_in(key, len(units)))]
    given = UnitInput(images, images)
    for number, (unit, index) in enumerate(units):
        problem = _problem(calibration, unit, state, given.floating, settings=settings)
        data, learned = _start(problem, state, jnp.int32(index), given, importance=weights[number])
        before, total = number * settings.steps, len(units) * settings.steps
        if problem.weights or problem.sites:
            unit_key, batch_key = jax.random.split(jax.random.fold_in(key, number))
            batch_size = min(settings.batch_size, len(images))
            draws = mini_batches(len(images), batch_size, settings.steps, batch_key)
            for done in range(1, settings.steps + 1):
                draw = Draw(draws[done - 1], jnp.int32(done), unit_key)
                learned = learn(problem, data, learned, draw)
                if done % REPORT_EVERY == 0:
                    jax.block_until_ready(learned)
                    calibration.progress(before + done, total)
        state, quantized = _finish(problem, state, data, learned.theta)
        given, weights[number] = UnitInput(quantized, data.wanted), None
        jax.block_until_ready(quantized)
        calibration.progress(before + settings.steps, total)
    return state


def _problem(
    calibration: Calibration, unit: Unit, state: State, x: Array, *, settings: BrecqConfig
) -> UnitProblem:
    """What there is to learn in a unit whose input is like `x`."""
    specs = unit_specs(unit, calibration.specs)
    found = reads(unit, state.params, jax.ShapeDtypeStruct(x.shape, x.dtype))
    learnable = {name for name, spec in specs if spec.has_scale and spec.quantizer.equal_steps}
    sites = tuple(name for name in found.sites if name in learnable) if settings.step_rate else ()
    learned = tuple((name, spec) for name, spec in specs if name in sites)
    return UnitProblem(
        unit,
        specs,
        weights=tuple(name for name, _ in specs if name in found.params),
        sites=sites,
        sharing=elements_sharing(learned, unit_sites(unit, calibration.sites)),
        chunk=calibration.chunk,
        config=settings,
    )


@partial(jax.jit, static_argnames=("problem",))
def _start(
    problem: UnitProblem, state: State, index: Array, given: UnitInput, *, importance: Array | None
) -> tuple[UnitData, Learned]:
    """What a unit's optimisation works with, and where it starts."""
    unit = problem.unit
    values = Values(unit_params(unit, state.params, index), unit_qparams(unit, state.qparams, index))
    reference = Values(unit_params(unit, state.reference, index), {})
    wanted = outputs(replace(problem, specs=()), reference, given.floating)
    start = weighted_error(outputs(problem, values, given.quantized), wanted, importance)
    return UnitData(index, values, given, wanted, importance, start), begin(problem, values)


@partial(jax.jit, static_argnames=("problem",))
def _finish(problem: UnitProblem, state: State, data: UnitData, theta: Theta) -> tuple[State, Array]:
    """The state with the unit's weights and scales decided, and its quantized output with them."""
    params, qparams = data.values

    def output(found: Decided) -> Array:
        changed = Values(unflatten(flatten(params) | found.weights), qparams | found.qparams)
        return outputs(problem, changed, data.input.quantized)

    learned, start = decided(problem, data.values, theta), nearest(problem, data.values)
    better = weighted_error(output(learned), data.wanted, data.importance) < data.start
    kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), learned, start)
    return write_back(problem.unit, state, data.block, kept), output(kept)


def _cost(parts: ModelParts, specs: Specs, settings: BrecqConfig, num_images: int) -> Cost:
    del parts, specs
    return Cost(floating=STEP * settings.steps * min(settings.batch_size, num_images))


BRECQ = NetworkLink(
    "brecq",
    "learns the rounding of weights and the steps of activations, block by block",
    brecq,
    settings=BrecqConfig(),
    changes_params=True,
    corrects=True,
    rounds=True,
    not_after=NotAfter(lambda earlier: earlier.rounds, "rounds weights that have been rounded"),
    cost=_cost,
)
