from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.search import programs
from evolq_jax.search.blockwise import search
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.prefixes import KINDS, Kind, Prefixes
from evolq_jax.search.problem import Runner
from evolq_jax.search.records import Generation, SearchResult
from tests.numbers import numbers
from tests.search.setting import BATCH, Setting
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


def run(setting: Setting, kind: Kind) -> tuple[SearchResult, list[Generation]]:
    generations: list[Generation] = []
    result = search(
        replace(CONFIG, prefixes=kind), setting.tiny.parts, setting.specs, setting.tiny.params,
        setting.qparams, setting.tokens, setting.teacher, jax.random.key(0), generations.append,
    )  # fmt: skip
    return result, generations


def test_recomputed_inputs_are_those_of_the_cache() -> None:
    """Of three segments, the inputs of every block: images searched on, and held out."""
    specs = (("a/h", QuantSpec()), ("b/h", QuantSpec()))
    lengths = {"a/h": 2, "b/h": 3}
    qparams = {name: numbers(jnp.full((n, 1), 0.2), 3, 3, stacked=True) for name, n in lengths.items()}
    network, tokens = programs.quantize(specs, params_with_down(), qparams), make_inputs(6)
    runner = Runner(WITH_DOWN, specs, image_chunk=3)
    kept = {kind: Prefixes(runner, tokens, num_searched=4, kind=kind) for kind in KINDS}
    ran = [prefixes.begin_pass(network) for prefixes in kept.values()]
    assert ran == [6, 6, 0]
    for number, block in [(2, 2), (2, 0), (1, 0), (0, 1), (0, 0)]:
        inputs, none = kept["float32"].begin_visit(network, number, block)
        halves, _ = kept["bfloat16"].begin_visit(network, number, block)
        again, blocks = kept["recompute"].begin_visit(network, number, block)
        assert (none, blocks) == (0, (0, 2, 3)[number] + block)
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
