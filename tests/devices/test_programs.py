"""Programs of earlier runs are dropped before their memory maps run out."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks.timing import count_compilations
from evolq_jax.devices import programs as compiled
from evolq_jax.devices.programs import forget_programs
from evolq_jax.pipeline.load import load_model
from tests.small_run import small_config

needs_maps = pytest.mark.skipif(not compiled.MAPS.exists(), reason="memory maps are Linux's")


@jax.jit
def scaled(x: jax.Array) -> jax.Array:
    return x * 3.0625


@jax.jit
def sine_products(x: jax.Array) -> jax.Array:
    return jnp.sin(x) @ x.T


def compilations() -> int:
    with count_compilations() as found:
        scaled(jnp.ones(5)).block_until_ready()
    return len(found.seconds)


@needs_maps
def test_programs_are_kept_while_there_is_room_and_dropped_after() -> None:
    compilations()
    assert not forget_programs(1.0)
    assert not compilations()
    assert forget_programs(0.0)
    assert compilations()


@needs_maps
@pytest.mark.cpu(reason="programs of other devices map no memory of the process")
def test_programs_map_memory_and_give_it_back() -> None:
    """What the limit is about: without it, dropping programs would help nothing."""

    def maps() -> int:
        return compiled.MAPS.read_bytes().count(b"\n")

    forget_programs(0.0)
    before = maps()
    for rows in range(1, 31):
        sine_products(jnp.ones((rows, 3))).block_until_ready()
    grown = maps() - before
    assert grown > 30
    forget_programs(0.0)
    assert maps() - before < grown / 2


def test_where_there_are_no_maps_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiled, "MAPS", tmp_path / "maps")
    assert not forget_programs(0.0)


@needs_maps
def test_a_run_begins_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: Path) -> None:
    limit = tmp_path / "limit"
    limit.write_text("10\n")
    monkeypatch.setattr(compiled, "MAX_MAPS", limit)
    compilations()
    load_model(small_config(weights))
    assert compilations()
