from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.network.point import at_qparams
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.search.config import PREFIX_KINDS, PrefixKind, SearchConfig
from evolq_jax.search.prefixes import blocks_to_cache, blocks_to_recompute, cache, inputs_at
from evolq_jax.search.problem import Place, make_problem
from evolq_jax.search.state import Generation, SearchEnd
from tests.numbers import numbers
from tests.search.setting import BATCH, Setting, searched
from tests.two_segments import WITH_DOWN, make_inputs, params_with_down

CONFIG = SearchConfig(
    algorithm="EvolQ",
    sites=("*/attn/qkv/weight",),
    parametrization="raw",
    generations=1,
    population_size=2,
    fitness="info_nce",
    batch_size=BATCH,
    holdout=0.0,
    image_chunk=12,
)


def run(setting: Setting, kind: PrefixKind) -> tuple[SearchEnd, list[Generation]]:
    found = searched(setting.subject, replace(CONFIG, prefixes=kind))
    return found.result, found.generations


def test_recomputed_inputs_are_those_of_the_cache() -> None:
    """Of three segments, the inputs of every block: images searched on, and held out."""
    specs = (("a/h", QuantSpec()), ("b/h", QuantSpec()))
    lengths = {"a/h": 2, "b/h": 3}
    qparams = {name: numbers(jnp.full((n, 1), 0.2), 3, 3, stacked=True) for name, n in lengths.items()}
    network, tokens = at_qparams(specs, params_with_down(), qparams), make_inputs(6)
    config = replace(CONFIG, sites=("*",), batch_size=2, holdout=0.4, image_chunk=3)
    problems = {
        kind: make_problem(replace(config, prefixes=kind), WITH_DOWN, specs, qparams, num_images=6)
        for kind in PREFIX_KINDS
    }
    kept = {kind: cache(problem, network, tokens) for kind, problem in problems.items()}
    assert [blocks_to_cache(problem) for problem in problems.values()] == [6, 6, 0]
    assert not kept["recompute"]
    for number, block in [(2, 2), (2, 0), (1, 0), (0, 1), (0, 0)]:
        place = Place(0, number, block, 1)
        inputs, halves, again = (
            inputs_at(problem, network, tokens, place=place, cached=kept[kind])
            for kind, problem in problems.items()
        )
        blocks = [blocks_to_recompute(problem, place) for problem in problems.values()]
        assert blocks == [0, 0, (0, 2, 3)[number] + block]
        for part, count in enumerate((4, 2)):
            expected = np.asarray(inputs[part][block])
            assert again[part].shape == (1, count, *expected.shape[1:])
            np.testing.assert_allclose(again[part][0], expected, rtol=1e-6, atol=1e-7)
            assert halves[part].dtype == jnp.bfloat16
            np.testing.assert_allclose(halves[part][block].astype(jnp.float32), expected, rtol=2**-8)
            assert not np.array_equal(halves[part][block].astype(jnp.float32), expected)


def test_a_search_finds_the_same_and_counts_what_it_ran(setting: Setting) -> None:
    cached, first = run(setting, "float32")
    recomputed, again = run(setting, "recompute")
    assert recomputed.fitness == pytest.approx(cached.fitness, rel=1e-4)
    np.testing.assert_allclose([line.fitness for line in again], [line.fitness for line in first], rtol=1e-4)
    images = len(setting.teacher)
    assert recomputed.candidate_images == cached.candidate_images - images + images * (2 + 1 + 0) / 3


def test_rounded_inputs_change_the_fitness_a_little(setting: Setting) -> None:
    cached, _ = run(setting, "float32")
    rounded, _ = run(setting, "bfloat16")
    assert rounded.start_fitness != cached.start_fitness
    assert rounded.start_fitness == pytest.approx(cached.start_fitness, rel=0.05)
    assert rounded.candidate_images == cached.candidate_images


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UserError, match="prefixes must be one of float32, bfloat16, recompute, not 'f16'"):
        SearchConfig(prefixes="f16")  # pyright: ignore[reportArgumentType]
