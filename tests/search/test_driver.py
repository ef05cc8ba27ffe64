from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward
from evolq_jax.objective.objective import Teacher
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.search.budget import num_evaluations
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.driver import run as run_search
from evolq_jax.search.state import Generation, SearchEnd
from tests.numbers import numbers
from tests.search.setting import (
    BATCH,
    Setting,
    Subject,
    begin,
    fitness_loop,
    make_setting,
    quantized_forward,
    searched,
)
from tests.two_segments import WITH_DOWN, make_inputs, params_with_down

EVOLQ = SearchConfig(
    algorithm="EvolQ",
    sites=("*/attn/qkv/weight", "*/attn/proj/weight"),
    parametrization="raw",
    passes=2,
    generations=2,
    population_size=4,
    epsilon=0.05,
    mutation="relative",
    pool_size=5,
    tournament_size=3,
    fitness="info_nce",
    batch_size=BATCH,
    holdout=0.0,
    image_chunk=12,
    population_chunk=4,
)
SNES = replace(EVOLQ, algorithm="SNES", sites=("blocks/*",), parametrization="log_per_tensor", passes=1)
DE = replace(EVOLQ, algorithm="DifferentialEvolution", parametrization="log", passes=1)
CONFIGS = {"EvolQ": EVOLQ, "SNES": SNES, "DifferentialEvolution": DE}


class Run(NamedTuple):
    config: SearchConfig
    result: SearchEnd
    generations: list[Generation]


def run(setting: Setting, config: SearchConfig, seed: int = 0) -> Run:
    found = searched(setting.subject, config, seed)
    return Run(config, found.result, found.generations)


@pytest.fixture(scope="module", params=list(CONFIGS))
def found(request: pytest.FixtureRequest, setting: Setting) -> Run:
    return run(setting, CONFIGS[request.param])


def test_the_fitness_reported_is_that_of_the_scales_found(setting: Setting, found: Run) -> None:
    result = found.result
    assert result.start_fitness == pytest.approx(setting.fitness(setting.qparams), rel=1e-3)
    assert result.fitness == pytest.approx(setting.fitness(result.qparams), rel=1e-3)
    assert result.fitness < 0.992 * result.start_fitness  # it found something, beyond rounding


def test_no_step_makes_it_worse_and_every_generation_is_told(found: Run) -> None:
    config, result, generations = found
    visits = [
        (pass_number, block, generation)
        for pass_number in range(config.passes)
        for block in (2, 1, 0)
        for generation in range(config.generations)
    ]
    assert [(g.pass_number, g.block, g.generation) for g in generations] == visits
    best = [g.best_fitness for g in generations]
    assert best == sorted(best, reverse=True)
    assert best[0] <= result.start_fitness
    assert best[-1] == result.fitness
    assert result.visits == len(visits) // config.generations
    assert 0 < result.kept <= result.visits
    assert all(g.best_fitness <= g.fitness for g in generations)
    assert [g.evaluations for g in generations] == [1 + 4 * (i + 1) for i in range(len(generations))]
    assert result.evaluations == num_evaluations(config, 3) == generations[-1].evaluations


def test_only_the_searched_scales_move(setting: Setting, found: Run) -> None:
    before, after = setting.qparams, found.result.qparams
    assert set(after) == set(before)
    weights = {"blocks/attn/qkv/weight", "blocks/attn/proj/weight"}
    searched = {name for name in before if name.startswith("blocks/")} if found.config == SNES else weights
    moved = {name for name in after if not np.array_equal(after[name].scale, before[name].scale)}
    assert moved
    assert moved <= searched
    for name in before:
        np.testing.assert_array_equal(after[name].zero_point, before[name].zero_point)
        assert float(after[name].scale.min()) > 0
        ratio = np.asarray(after[name].scale / before[name].scale)
        if found.config == SNES and name in moved:  # one ratio for each tensor of each block
            flat = ratio.reshape(3, -1)
            np.testing.assert_allclose(flat, flat[:, :1].repeat(flat.shape[1], 1), rtol=1e-5)
        elif name in moved:
            assert np.ptp(ratio) > 1e-3


def test_the_seed_decides(setting: Setting) -> None:
    config = replace(EVOLQ, passes=1)
    first, again, other = run(setting, config), run(setting, config), run(setting, config, seed=1)
    assert first.result.fitness == again.result.fitness
    same = jax.tree.map(np.array_equal, first.result.qparams, again.result.qparams)
    assert jax.tree.all(same)
    differs = jax.tree.map(lambda a, b: not np.array_equal(a, b), first.result.qparams, other.result.qparams)
    assert any(jax.tree.leaves(differs))


def test_rescoring_the_start_costs_one_evaluation_a_visit(setting: Setting) -> None:
    config = replace(EVOLQ, rescore_start=True)
    result = run(setting, config).result
    assert result.evaluations == num_evaluations(config, 3) == 2 * 3 * (2 * 4 + 1)
    assert result.fitness == pytest.approx(setting.fitness(result.qparams), rel=1e-3)


def test_held_out_images_decide_which_moves_are_kept(setting: Setting) -> None:
    """Six images for the candidates, six for the decision."""
    config = replace(EVOLQ, holdout=0.5)
    assert config.num_held_out(12) == 6
    _, result, generations = run(setting, config)
    before, after = setting.logits(setting.qparams), setting.logits(result.qparams)
    searched, held_out = slice(6), slice(6, None)
    assert result.start_fitness == pytest.approx(
        fitness_loop(before[searched], setting.teacher[searched]), rel=1e-3
    )
    assert result.fitness == pytest.approx(fitness_loop(after[searched], setting.teacher[searched]), rel=1e-3)
    gain = fitness_loop(before[held_out], setting.teacher[held_out]) - fitness_loop(
        after[held_out], setting.teacher[held_out]
    )
    assert gain > 0
    assert result.visits == 6
    assert 0 < result.kept <= 6
    assert result.evaluations <= num_evaluations(config, 3)
    assert len(generations) == 12


def test_no_move_is_kept_that_the_held_out_images_refuse(setting: Setting) -> None:
    """Their teacher is the start itself, so that every move away from it is a loss there."""
    start = setting.logits(setting.qparams)
    teacher = jnp.concatenate([setting.teacher[:6], start[6:]])
    config = replace(EVOLQ, holdout=0.5, fitness="mse", passes=1)
    _, result, generations = run(setting._replace(teacher=teacher), config)
    assert min(g.best_fitness for g in generations) < 0.99 * result.start_fitness
    assert result.kept == 0
    assert result.fitness == result.start_fitness
    assert jax.tree.all(jax.tree.map(np.array_equal, result.qparams, setting.qparams))


def test_images_held_out_come_in_whole_batches() -> None:
    config = replace(EVOLQ, batch_size=100, holdout=0.25)
    assert config.num_held_out(1000) == 200
    assert replace(config, holdout=0.0).num_held_out(100) == 0
    with pytest.raises(UserError, match=r"0\.25 of 300 calibration images leaves no whole batch of 100"):
        config.num_held_out(300)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 5}, "12 calibration images are no multiple of the contrastive batch of 5"),
        ({"sites": ("*/attn/kqv/weight",)}, "matches no quantization site"),
        ({"sites": ("head/weight",)}, "head/weight are all outside the blocks of 'blocks'"),
        (
            {"halving": 3},
            "search.halving 3 needs 4 batches, and 12 images",
        ),
        ({"algorithm": "Snes", "parametrization": "log"}, "unknown search algorithm 'Snes'"),
    ],
)
def test_what_cannot_be_searched_is_refused(setting: Setting, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(setting, replace(EVOLQ, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"passes": 0}, "search.passes must be at least 1, not 0"),
        ({"tournament_size": -1}, "search.tournament_size must be at least 1"),
        ({"epsilon": 0.0}, "search.epsilon must be positive"),
        ({"holdout": 1.0}, "search.holdout must be from 0 to below 1"),
        ({"temperature": float("nan")}, "search.temperature must be positive"),
        ({"parametrization": "log"}, "'log' does not suit search.algorithm 'EvolQ'; choose 'raw'"),
        ({"grid_start": 1}, "search.grid_start needs a log parametrization"),
        ({"density": 0.0}, "search.density must be above 0 and at most 1, not 0.0"),
        ({"min_gain": -1.0}, "search.min_gain must not be negative, not -1.0"),
        ({"halving": 0}, "search.halving must be at least 1, not 0"),
        ({"zero_points": True}, "search.zero_points needs a log parametrization"),
        ({"algorithm": "SNES"}, "'raw' does not suit search.algorithm 'SNES'; choose 'log' or"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(EVOLQ, **changes)


class Compilations:
    """Counts what XLA compiles while it is `on`, by the function's name."""

    def __init__(self) -> None:
        self.on, self.names = False, Counter[str]()

    def __call__(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        del duration_secs
        if self.on and event == "/jax/core/compile/backend_compile_duration":
            self.names[str(kwargs.get("fun_name"))] += 1


@pytest.fixture(scope="module")
def compilations() -> Iterator[Compilations]:
    found = Compilations()
    jax.monitoring.register_event_duration_secs_listener(found)
    yield found
    found.on = False


def test_programs_are_as_many_for_five_blocks_as_for_two(compilations: Compilations) -> None:
    """And none is compiled after the first pass."""
    expected = {"cache_inputs": 1, "start": 1, "ask": 1, "tell": 1, "write_back": 1}
    expected["score"] = 2  # of the start alone, and of a population
    by_depth: list[dict[str, int]] = []
    for depth in (2, 5):
        setting = make_setting(depth, activations=False)
        last_pass = Counter[str]()
        jax.clear_caches()  # what does not depend on the depth is shared
        compilations.names, compilations.on = Counter[str](), True
        record = None
        for record in run_search(*begin(setting.subject, replace(EVOLQ, passes=2))):
            if isinstance(record, Generation) and record.pass_number == 1 and not last_pass:
                last_pass.update(compilations.names)
        compilations.on = False
        assert isinstance(record, SearchEnd)
        assert record.fitness < record.start_fitness  # so the write-back was compiled as well
        assert compilations.names == last_pass
        programs = {k.removeprefix("jit(").removesuffix(")"): v for k, v in compilations.names.items()}
        assert sum(programs.values()) < 25  # nothing runs one operation at a time
        by_depth.append({name: programs.get(name, 0) for name in expected})
    assert by_depth == [expected, expected]


def three_segment_search(sites: tuple[str, ...]) -> tuple[SearchEnd, list[Generation], float]:
    """Of the second, the only block gives another shape than it gets."""
    params, x = params_with_down(), make_inputs(12)
    qparams = {
        "a/weight": numbers(jnp.full((2, 1, 6), 0.3), 4, 3, stacked=True),
        "down/weight": numbers(jnp.full((1, 1, 4), 0.3), 4, 3, stacked=True),
        "b/weight": numbers(jnp.full((3, 1, 4), 0.3), 4, 3, stacked=True),
    }
    specs = tuple((name, QuantSpec(per_channel=True)) for name in qparams)
    teacher = forward(WITH_DOWN, float_reading(params), x)
    config = replace(EVOLQ, sites=sites, passes=1, epsilon=0.3)
    result, generations, _ = searched(Subject(WITH_DOWN, specs, params, qparams, x, Teacher(teacher)), config)
    logits = quantized_forward(WITH_DOWN, specs)(params, result.qparams, x)
    return result, generations, fitness_loop(logits, teacher)


def test_segments_are_searched_last_to_first() -> None:
    result, generations, fitness = three_segment_search(("*/weight",))
    visits = [(g.segment, g.block) for g in generations[::2]]
    assert visits == [("b", 2), ("b", 1), ("b", 0), ("down", 0), ("a", 1), ("a", 0)]
    assert result.fitness == pytest.approx(fitness, rel=1e-3)
    assert result.fitness < result.start_fitness
    assert not np.array_equal(result.qparams["down/weight"].scale, np.full((1, 1, 4), 0.3, np.float32))


def test_one_segment_can_be_searched_alone_but_a_typo_searches_nothing() -> None:
    _, generations, _ = three_segment_search(("a/*",))
    assert {g.segment for g in generations} == {"a"}
    with pytest.raises(UserError, match="'c/weight' matches no quantization site"):
        three_segment_search(("a/weight", "c/weight"))


def test_programs_that_count_their_blocks_find_what_the_shared_one_finds(setting: Setting) -> None:
    """As on accelerators: the same candidates, scored the same but for rounding."""
    config = SearchConfig(batch_size=BATCH, passes=1, generations=2, population_size=3)
    shared, counted = (
        searched(setting.subject, replace(config, block_loop=loop)) for loop in ("shared", "counted")
    )
    for got, want in zip(counted.generations, shared.generations, strict=True):
        np.testing.assert_allclose(got.fitness, want.fitness, rtol=1e-3)
    assert counted.result.evaluations == shared.result.evaluations
    for site, want in shared.result.qparams.items():
        np.testing.assert_allclose(counted.result.qparams[site].scale, want.scale, rtol=1e-3)
