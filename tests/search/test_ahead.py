"""What is compiled ahead is what the visits then call: nothing is compiled twice."""

from collections import Counter
from dataclasses import replace
from typing import Any

import jax
import pytest

from benchmarks.timing import count_compilations
from evolq_jax.search.config import SearchConfig
from tests.search.setting import Setting, searched

BY_VISITS = ("start", "ask", "tell", "cache_inputs")


BASE = SearchConfig(passes=1, generations=2, population_size=4, batch_size=6, holdout=0.0)


@pytest.mark.parametrize(
    ("changes", "scores"),
    [
        ({}, 1),
        ({"holdout": 0.5, "algorithm": "CMA_ES", "population_size": 5}, 1),
        ({"prefixes": "bfloat16"}, 1),
        ({"population_chunk": 2}, 2),  # and one for a single candidate
        ({"block_loop": "counted"}, 4),  # one for each block
    ],
)
def test_a_search_compiles_each_program_once(setting: Setting, changes: dict[str, Any], scores: int) -> None:
    jax.clear_caches()
    with count_compilations() as compiled:
        searched(setting.subject, replace(BASE, **changes))
    found = Counter(compiled.names)
    assert {name: found[f"jit({name})"] for name in BY_VISITS} == dict.fromkeys(BY_VISITS, 1)
    assert found["jit(score)"] == scores
