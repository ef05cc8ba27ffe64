"""A calibrated tiny network, and its fitness by the plainest way: whole forward passes and numpy."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.point import Quantized, at_qparams
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward
from evolq_jax.network.walk import embed
from evolq_jax.objective.objective import Objective, Teacher
from evolq_jax.quant.qparams import QParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.spec import Specs
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.driver import run
from evolq_jax.search.population import Context, population_fitness
from evolq_jax.search.problem import Data, Problem, make_data, make_problem
from evolq_jax.search.runner import Runner
from evolq_jax.search.state import Generation, SearchEnd, State, Visit, init
from evolq_jax.typing import Array, Params
from tests.objective.test_logits import info_nce_loop
from tests.tiny import PREPROCESSING, Tiny, make_tiny

BATCH = 6  # two contrastive batches of the twelve images


class Subject(NamedTuple):
    """What is searched."""

    parts: ModelParts
    specs: Specs
    params: Params
    qparams: QParams
    tokens: Array
    teacher: Teacher


class Searched(NamedTuple):
    """What a search said."""

    result: SearchEnd
    generations: list[Generation]
    states: list[State]  # after every visit


def begin(
    subject: Subject, config: SearchConfig, seed: int = 0, *, mesh: Mesh | None = None
) -> tuple[Problem, Data, State]:
    """The problem, its arrays, and the state before the first visit."""
    parts, specs, params, qparams, tokens, teacher = subject
    problem = make_problem(config, parts, specs, qparams, num_images=len(teacher.logits), mesh=mesh)
    placement = problem.runner.placement
    tokens = tokens if placement is None else placement.put(np.asarray(tokens))
    return problem, make_data(problem, params, tokens, teacher), init(problem, qparams, jax.random.key(seed))


def searched(
    subject: Subject,
    config: SearchConfig,
    seed: int = 0,
    *,
    state: State | None = None,
    mesh: Mesh | None = None,
) -> Searched:
    """A whole search, from the start or from a state."""
    problem, data, first = begin(subject, config, seed, mesh=mesh)
    generations: list[Generation] = []
    states: list[State] = []
    for record in run(problem, data, state or first):
        match record:
            case Generation():
                generations.append(record)
            case Visit():
                states.append(record.state)
            case SearchEnd():
                return Searched(record, generations, states)
    raise AssertionError("a search ends with its result")


class Setting(NamedTuple):
    tiny: Tiny
    specs: Specs
    qparams: QParams
    network: Quantized
    tokens: Array
    teacher: Array

    @property
    def subject(self) -> Subject:
        """For a search."""
        teacher = Teacher(self.teacher)
        return Subject(self.tiny.parts, self.specs, self.tiny.params, self.qparams, self.tokens, teacher)

    def logits(self, qparams: QParams) -> Array:
        """Quantized logits by a whole forward pass, from the images."""
        return quantized_forward(self.tiny.parts, self.specs)(self.tiny.params, qparams, self.tiny.images)

    def fitness(self, qparams: QParams) -> float:
        return fitness_loop(self.logits(qparams), self.teacher)


@cache
def quantized_forward(parts: ModelParts, specs: Specs) -> Callable[[Params, QParams, Array], Array]:
    def run(params: Params, qparams: QParams, images: Array) -> Array:
        return forward(parts, at_qparams(specs, params, qparams).reading(specs), images)

    return jax.jit(run)


def fitness_loop(student: Array, teacher: Array) -> float:
    """infoNCE at temperature 3 by a double loop, averaged over the batches."""
    pairs = zip(*(np.split(np.asarray(x), len(x) // BATCH) for x in (student, teacher)), strict=True)
    return float(np.mean([info_nce_loop(s, t, 3.0) for s, t in pairs]))


def with_block(qparams: QParams, segment: str, block: int, block_qparams: QParams) -> QParams:
    """The scales with those of one block put in."""
    found = dict(qparams)
    for name, site_qparams in block_qparams.items():
        site = f"{segment}/{name}"
        found[site] = jax.tree.map(lambda all_, one: all_.at[block].set(one), found[site], site_qparams)
    return found


@cache
def make_setting(depth: int = 3, activations: bool = True) -> Setting:
    """Operands of products at W3A8 (or weights only), calibrated by minmax on all twelve images.

    The image stays in float: with pixels from -1 to 1 its zero point would be 127.5, and every pixel a
    tie that programs break differently.
    """
    tiny = make_tiny(depth)
    config = QuantConfig("matmul", weight_bits=3, weight_observer="minmax", activation_observer="minmax")
    specs, bits = resolve(config, tiny.sites)
    if not activations:
        specs = tuple((name, spec) for name, spec in specs if tiny.sites[name].is_weight)
    given, start = (tiny.parts, specs, tiny.params, [tiny.images]), blank_qparams(specs, bits, tiny.sites)
    qparams = calibrate(*given, sites=tiny.sites, qparams=start, chunk=12).qparams

    @jax.jit
    def arrays(params: Params, qparams: QParams, pixels: Array) -> tuple[Quantized, Array, Array]:
        network = at_qparams(specs, params, qparams)
        reading = network.reading(specs)
        tokens = embed(tiny.parts, reading, pixels, preprocessing=PREPROCESSING, chunk=12)
        return network, tokens, forward(tiny.parts, float_reading(params), tiny.images)

    return Setting(tiny, specs, qparams, *arrays(tiny.params, qparams, tiny.pixels))


@partial(jax.jit, static_argnames=("runner", "objective", "number"))
def score(
    runner: Runner, objective: Objective, context: Context, candidates: QParams, *, number: int = 0
) -> Array:
    """`population_fitness` of one block's candidates, compiled."""
    of_one_block = jax.tree.map(lambda leaf: leaf[:, None], candidates)
    return population_fitness(runner, objective, context, of_one_block, number=number)
