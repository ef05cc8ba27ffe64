"""Descents of the calibrated tiny network."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.gradient.config import BaselineConfig
from evolq_jax.gradient.driver import run
from evolq_jax.gradient.problem import Data, Problem, make_problem
from evolq_jax.gradient.state import DescentEnd, Evaluation, State, Step, init
from evolq_jax.objective.objective import Teacher
from evolq_jax.search.config import SearchConfig
from tests.search.setting import BATCH, Setting

SITES = ("blocks/attn/qkv/weight", "blocks/mlp/fc2/weight", "blocks/norm1")
SEARCH = SearchConfig(sites=SITES, fitness="info_nce", batch_size=BATCH, holdout=0.0, image_chunk=12)
HELD_OUT = replace(SEARCH, holdout=0.5)
BASELINE = BaselineConfig(learning_rate=0.02, evaluate_every=2, lsq_scaling=False)


class Descended(NamedTuple):
    """What a descent said."""

    result: DescentEnd
    evaluations: list[Evaluation]
    states: list[State]  # once the start is evaluated, and after every step


def problem_of(
    setting: Setting, config: BaselineConfig = BASELINE, budget: int = 500, *, search: SearchConfig = SEARCH
) -> Problem:
    tiny = setting.tiny
    return make_problem(
        config, search, tiny.parts, setting.specs, sites=tiny.sites, num_images=12, budget=budget
    )


def data_of(setting: Setting) -> Data:
    return Data(setting.tiny.params, setting.qparams, setting.tokens, Teacher(setting.teacher))


def listened(problem: Problem, data: Data, state: State) -> Descended:
    """A descent from a state to its end."""
    evaluations: list[Evaluation] = []
    states: list[State] = []
    for record in run(problem, data, state):
        match record:
            case Evaluation():
                evaluations.append(record)
            case Step():
                states.append(record.state)
            case DescentEnd():
                return Descended(record, evaluations, states)
    raise AssertionError("a descent ends with its result")


def descended(
    setting: Setting, config: BaselineConfig, budget: int, *, search: SearchConfig = SEARCH, seed: int = 0
) -> Descended:
    """A whole descent."""
    problem = problem_of(setting, config, budget, search=search)
    return listened(problem, data_of(setting), init(problem, setting.qparams, jax.random.key(seed)))


def without_seconds(found: Descended) -> Descended:
    """To compare descents: times are no result."""
    return Descended(
        found.result._replace(seconds=0),
        [record._replace(seconds=0) for record in found.evaluations],
        [state._replace(seconds=0) for state in found.states],
    )


def same_bits(found: Any, wanted: Any) -> bool:
    """Whether two trees hold the same arrays, numbers and keys."""

    def plain(leaf: Any) -> np.ndarray:
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(plain(a), plain(b)), found, wanted))
