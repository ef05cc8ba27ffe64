"""What the benchmarks count is right; how fast anything is, they say and no test asserts."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    compilations,
    float_forward,
    landscape,
    peak,
    plan,
    precision,
    scaling,
    search_throughput,
)
from benchmarks.search_throughput import Case
from benchmarks.subject import Subject
from benchmarks.timing import count_compilations, interleave
from evolq_jax.models.registry import get_entry
from evolq_jax.models.vit import ViTConfig
from evolq_jax.quant.scheme import QuantConfig
from tests.tiny import PREPROCESSING, make_tiny


def tiny_subject(depth: int) -> Subject:
    tiny = make_tiny(depth)
    return Subject(tiny.config, tiny.parts, tiny.params, PREPROCESSING, tiny.pixels[:10], "tiny", "random")


def test_compilations_are_counted() -> None:
    double = jax.jit(lambda x: x * 2.125)
    with count_compilations() as first:
        double(jnp.ones(3)).block_until_ready()
    with count_compilations() as again:
        double(jnp.ones(3)).block_until_ready()
    assert len(first.seconds) >= 1
    assert again.seconds == []


@pytest.mark.slow
def test_a_search_compiles_the_same_at_any_depth() -> None:
    case = Case("matmul", 5, generations=1)
    rows = [compilations.row(tiny_subject(depth), case) for depth in (3, 4)]  # both keep a move
    assert rows[0]["compilations"] == rows[1]["compilations"] > 0


def test_measurements_are_taken_in_turn() -> None:
    order: list[str] = []

    def task(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    found = interleave({"a": lambda: task("a", 1.0), "b": lambda: task("b", 2.0)}, 2)
    assert order == ["a", "b", "a", "b"]
    assert found == {"a": [1.0, 1.0], "b": [2.0, 2.0]}


def test_operations_of_vit_tiny() -> None:
    config = ViTConfig(width=192, num_heads=3, mlp_width=768)
    tokens, width = 197, 192
    products = 2 * tokens * (width * 3 * width + width * width + 2 * width * 768)
    attention = 2 * 2 * tokens * tokens * width
    assert peak.block_flops(config) == products + attention
    assert peak.forward_flops(config) == pytest.approx(2.507e9, rel=1e-3)


def test_a_chunk_that_does_not_divide_leaves_images_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.float_forward.timed", lambda run: lambda: float(run().size))
    logits_of_an_image = float_forward.seconds_per_image(tiny_subject(2), 4)()
    assert logits_of_an_image == 10


def test_candidates_are_counted_without_the_start() -> None:
    subject, peak_of_machine = tiny_subject(2), 1e9
    began = time.perf_counter()
    row = search_throughput.row(subject, Case("matmul", 5, 1), lambda: 1.0, peak_of_machine, 1)
    seconds = 20 / row["candidate images/s"]  # 2 blocks, 1 child, 10 images
    assert 0 < seconds < time.perf_counter() - began
    assert row["ratio"] == pytest.approx(row["candidate images/s"], rel=0.01)
    blocks = 10 * (1 + 2 + 2 + 1)  # candidates, the pass that fills the cache, the start
    speed = blocks * peak.block_flops(subject.config) / seconds
    assert row["share of peak"] == pytest.approx(speed / peak_of_machine, rel=0.05, abs=1e-3)


@pytest.mark.cpu(reason="GPUs call libraries for products, which do not say their work")
def test_work_of_a_compiled_program() -> None:
    """Of one child of the ViT for the digits, whose middle block has one after it."""
    case = scaling.Case("strong", 1, "candidate=1,data=1", 1, 20)
    done, seconds = scaling.measure(scaling.load("vit_digits"), case, 5)
    config = get_entry("vit_digits").config
    head = 2 * config.width * config.num_classes
    assert done.flops == pytest.approx(20 * (2 * peak.block_flops(config) + head), rel=1e-2)
    assert not done.counts
    assert seconds is None


def test_candidates_at_lower_precision_change_their_order() -> None:
    """Rounded operands give another fitness, not a wholly other one; pairs are compared, not numbers."""
    subject = tiny_subject(2)
    sites, specs, blank = subject.quantizers(QuantConfig("matmul", weight_bits=4))
    options = precision.Options(pairs=8, spread=0.1, images=10, emulate=True)
    at_precision = precision.fitness(subject, sites, specs, blank, options)
    exact, coarse = (at_precision(name).reshape(-1, 2) for name in ("float32", "bfloat16"))
    assert 0 < np.abs(coarse - exact).max() < 0.5 * np.abs(exact).max()
    assert precision.changed_order(exact, exact) == 0
    assert (
        precision.changed_order(np.array([[1.0, 2.0], [4.0, 3.0]]), np.array([[2.0, 1.0], [4.0, 3.0]])) == 1
    )


def test_points_of_a_plane_are_counted() -> None:
    subject = tiny_subject(2)
    began = time.perf_counter()
    row = landscape.row(subject, landscape.Case("matmul", 5, first_block=0.5), 3, lambda: 1.0, 1)
    assert row["first block"] == 1
    seconds = 9 * 10 / row["point-images/s"]  # 3 x 3 points, 10 images
    assert 0 < seconds < time.perf_counter() - began
    assert row["ratio"] == pytest.approx(row["point-images/s"], rel=0.01)


def test_a_plan_is_compared_with_the_stage_that_held_most() -> None:
    stages = [{"peak": 100.0}, {"peak": 200.0}, {"peak": 50.0}]
    case = {"network": "x", "setting": "ranges", "chunk": 4, "happened": {"took": 20.0, "stages": stages}}
    found = plan.row(case | {"planned": {"estimated_seconds": 25.0, "estimated_memory_mib": 190}})
    assert (found["ratio s"], found["ratio MiB"]) == ("1.25", "0.95")
