"""What the benchmarks count is right; how fast anything is, they say and no test asserts."""

import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    depth,
    device,
    float_forward,
    kernels,
    landscape,
    peak,
    plan,
    precision,
    runtimes,
    scaling,
    search_throughput,
)
from benchmarks.launches import launches
from benchmarks.search_throughput import Case
from benchmarks.subject import Options, Subject
from benchmarks.timing import count_compilations, interleave
from evolq_jax.models.registry import get_entry
from evolq_jax.models.vit import ViTConfig
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.typing import Array
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
    rows = [depth.row(tiny_subject(blocks), case) for blocks in (3, 4)]  # both keep a move
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
    assert peak.last_block_flops(config) == 2 * tokens * 3 * width**2 + 2 * width * (9 * width + 2 * tokens)
    assert peak.forward_flops(config) == pytest.approx(2.348e9, rel=1e-3)
    assert peak.forward_flops(config, whole=True) == pytest.approx(2.507e9, rel=1e-3)


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
    blocks = 1 + 1 + 2 + 1  # of candidates, the pass that fills the cache, the start
    flops = blocks * peak.block_flops(subject.config) + peak.last_block_flops(subject.config)
    speed = 10 * flops / seconds
    assert row["share of peak"] == pytest.approx(speed / peak_of_machine, rel=0.05, abs=1e-3)


@pytest.mark.parametrize("known", [True, False])
def test_launches_of_a_compiled_program(known: bool) -> None:
    """A product in a loop, whose rounds a GPU's host asks for unless they are known; a slice counts alone."""

    def run(x: Array, stacked: Array, stop: Array | int) -> Array:
        return jax.lax.fori_loop(0, stop, lambda i, x: jnp.tanh(x @ stacked[i]), x)

    shapes = jnp.ones((64, 64)), jnp.ones((10, 64, 64))
    given = jax.jit(lambda x, w: run(x, w, 10)).lower(*shapes) if known else jax.jit(run).lower(*shapes, 10)
    text = given.compile().as_text() or ""
    found, one = launches(text, 7), launches(text, 1)
    rounds = 10 if known else 7
    assert (found.unknown_loops, found.host) == ((0, 0) if known else (1, 7))
    assert 3 * rounds <= found.total <= 8 * rounds  # a slice, a product and a tanh at least
    assert 5 * 64 * 64 * 4 * rounds <= found.bytes <= 12 * 64 * 64 * 4 * rounds
    assert (found.total - one.total) % 6 == 0


def test_kernels_are_counted_for_both_loops() -> None:
    """With known rounds the host need not be asked. The last block needs none in either case."""
    subject, config = tiny_subject(3), search_throughput.paper_search(10, Case("matmul", 5))
    rows = {
        (loop, block): kernels.row(subject, "matmul", replace(config, block_loop=loop), block)
        for loop in kernels.LOOPS
        for block in (0, 2)
    }
    assert rows["shared", 0]["host waits"] > 0 == rows["counted", 0]["host waits"]
    assert rows["shared", 0]["unknown loops"] == 1 > rows["counted", 0]["unknown loops"]
    assert rows["counted", 0]["kernels"] > rows["counted", 2]["kernels"] > 0


def test_shares_of_a_device_are_those_of_the_roofline() -> None:
    """On whatever runs the tests; rates mean nothing for so small a network."""
    subject, case = tiny_subject(3), Case("matmul", 5, children=2, population_chunk=2)
    found = device.row(subject, case, device.Ceiling(1e9, 2e9), repeats=1)
    flops, moved = device.flops_of_image(subject), found["MiB an image"] * device.MIB
    config = subject.config
    head = 2 * config.width * config.num_classes
    assert flops == peak.block_flops(config) + peak.last_block_flops(config) + head
    rate = found["candidate images/s"]
    assert found["of the product peak"] == pytest.approx(rate * flops / 1e9, rel=0.01, abs=1e-3)
    assert found["of the copy rate"] == pytest.approx(rate * moved / 2e9, rel=0.05, abs=1e-3)
    assert found["roofline images/s"] == pytest.approx(min(1e9 / flops, 2e9 / moved), rel=0.05)
    assert device.copy_rate(2**20, 1) > 0


@pytest.mark.cpu(reason="GPUs call libraries for products, which do not say their work")
def test_work_of_a_compiled_program() -> None:
    """Of one child of the ViT for the digits, whose middle block has one after it."""
    case = scaling.Case("strong", 1, "candidate=1,data=1", 1, 20)
    done, seconds = scaling.measure(scaling.load("vit_digits"), case, 5)
    config = get_entry("vit_digits").config
    head = 2 * config.width * config.num_classes
    blocks = peak.block_flops(config) + peak.last_block_flops(config)
    assert done.flops == pytest.approx(20 * (blocks + head), rel=1e-2)
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


def test_files_of_runtimes() -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'evolq_jax[onnx]'")
    rows = {row["file"]: row for row in runtimes.measure(tiny_subject(2), Options(quick=True))}
    assert rows["float"]["integer products"] == 0
    for bits in (4, 8):  # all but that of the embedding, whose pixels are not quantized
        row = rows[f"W{bits}A8"]
        assert (row["integer products"], row["float products"]) == (2 * 6 + 1, 1)
    assert rows["W4A8"]["MB"] < rows["W8A8"]["MB"] < rows["float"]["MB"]
