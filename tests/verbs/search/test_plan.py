from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evolq_jax.config.experiment import Experiment, QuantConfig, Rule
from evolq_jax.errors import UserError
from evolq_jax.models.checkpoint import save_params
from evolq_jax.models.registry import REGISTRY
from evolq_jax.pipeline.held import held
from evolq_jax.pipeline.load import Setup, load_model
from evolq_jax.pipeline.searched import searched_sites
from evolq_jax.verbs.search import plan as plan_module
from evolq_jax.verbs.search.plan import network_share, num_total, plan_search, searched_blocks
from tests.families import ENTRIES, unfolded_params
from tests.measured import without_timing
from tests.small_run import BLOCKS, small_config

WIDTH, TOKENS = 64, 17


def setup_with(weights: Path, quant: dict[str, Any] | None = None, **search: Any) -> Setup:
    config = small_config(weights)
    return load_model(
        replace(
            config,
            quant=replace(config.quant, **(quant or {})),
            search=replace(config.search, **search),
        )
    )


@pytest.fixture
def no_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    without_timing(monkeypatch, "search")


@pytest.mark.usefixtures("no_timing")
def test_a_plan_counts_without_writing_or_decoding(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_search(small_config(weights))
    assert plan.evaluations == 2 * BLOCKS + 1
    assert plan.searched_sites == ("blocks/attn/qkv/weight",)
    assert plan.searched_scales == BLOCKS * 3 * WIDTH
    assert "image size 8, patch size 2" in plan.network
    assert plan.preprocessing == "no resize, crop 8, mean 0.5, std 0.5"
    assert plan.quantized_sites == len(load_model(small_config(weights)).specs)
    # blocks 3, 2, 1, 0 run 1, 2, 3 and 4 of the 4 blocks: 2.5 on average
    assert plan.network_share_per_evaluation == 0.625
    running = (20 * (9 * 0.625 + 2) + 2 * 30) / 80 + (20 + 30) / 100 + 3e9 / 1e9 + 2e8 / 1e8
    # A program of the float network's size takes its time, one of four times the size twice that. These are
    # calibration's two, then two for candidates and four for networks.
    compiling = 0.5 * ((1 + 2) + 2 + 4)
    assert plan.estimated_seconds == pytest.approx(running + compiling, abs=0.06)
    assert plan.estimated_memory_mib > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("search", "evaluations"),
    [
        ({"passes": 3, "generations": 2, "population_size": 5}, 3 * BLOCKS * 10 + 1),
        ({"passes": 3, "generations": 2, "rescore_start": True}, 3 * BLOCKS * 2 + 3 * BLOCKS),
        ({"passes": 3, "generations": 2, "holdout": 0.5}, 3 * BLOCKS * 2 + 1 + 3 * BLOCKS + 1),
    ],
)
def test_evaluations(weights: Path, search: dict[str, Any], evaluations: int) -> None:
    assert num_total(setup_with(weights, **search)) == evaluations


@pytest.mark.usefixtures("no_timing")
def test_a_budget_decides_on_evaluations_and_time(weights: Path) -> None:
    config = small_config(weights)
    plan = plan_search(replace(config, search=replace(config.search, passes=9, budget=500)))
    assert plan.evaluations == 500 / (20 * 0.625)
    unbounded = plan_search(config)
    spent = 500 - 20 * (9 * 0.625 + 2)
    assert plan.estimated_seconds - unbounded.estimated_seconds == pytest.approx(spent / 80, abs=0.11)


def test_scales_by_parametrization(weights: Path) -> None:
    def count(**search: Any) -> int:
        setup = setup_with(weights, **search)
        return sum(plan_module._num_searched(setup, name) for name in searched_sites(setup))  # pyright: ignore[reportPrivateUsage]

    assert count(sites=("*/qkv/weight",)) == BLOCKS * 3 * WIDTH
    log = {"algorithm": "SNES", "population_size": 4, "parametrization": "log_per_tensor"}
    assert count(sites=("*/qkv/weight",), **log) == BLOCKS
    assert count(sites=("*/qkv/weight", "blocks/norm1")) == BLOCKS * (3 * WIDTH + 1)
    log |= {"parametrization": "log_per_group", "group_size": 50, "zero_points": True}
    assert count(sites=("*/qkv/weight", "blocks/norm1"), **log) == BLOCKS * 2 * (4 + 1)


def test_sites_outside_the_blocks_are_not_searched(weights: Path) -> None:
    assert searched_sites(setup_with(weights, sites=("head/weight", "*/proj/weight"))) == (
        "blocks/attn/proj/weight",
    )
    with pytest.raises(UserError, match=r"search.sites \(head/weight\) name no site of the network's blocks"):
        searched_sites(setup_with(weights, sites=("head/weight",)))
    with pytest.raises(UserError, match=r"search.sites \(empty\)"):
        searched_sites(setup_with(weights, sites=()))


def test_sites_without_scales_are_not_searched(weights: Path) -> None:
    log2 = {"softmax_quantizer": "log2"}
    assert "blocks/attn/softmax" in searched_sites(setup_with(weights, sites=("*",)))
    assert "blocks/attn/softmax" not in searched_sites(setup_with(weights, log2, sites=("*",)))
    unquantized = {"rules": (Rule("blocks/norm1", bits=0),)}
    with pytest.raises(UserError, match="'blocks/norm1' matches no quantization site"):
        searched_sites(setup_with(weights, unquantized, sites=("blocks/norm1",)))


def test_memory_grows_with_images_and_chunks(weights: Path) -> None:
    setup = setup_with(weights, image_chunk=8, population_chunk=2)
    phases = held(setup, 100)
    parts = phases["candidates"]
    assert parts["inputs of every block"] == 4 * 100 * BLOCKS * TOKENS * WIDTH
    assert parts["calibration images"] == 100 * 8 * 8
    assert phases["calibration"]["normalised images"] == 4 * 100 * 8 * 8
    assert held(setup, 200)["candidates"]["inputs of every block"] == 2 * parts["inputs of every block"]
    larger = held(setup_with(weights, image_chunk=16, population_chunk=2), 100)["candidates"]
    assert larger["activations"] == 2 * parts["activations"]
    assert larger["a block's parameters, by candidate"] == parts["a block's parameters, by candidate"]


def test_shares_of_the_network(weights: Path) -> None:
    setup = setup_with(weights)
    assert searched_blocks(setup) == [(BLOCKS, 0)]
    assert network_share(setup) == (BLOCKS + 1) / 2 / BLOCKS


@pytest.mark.shared
def test_the_paper_s_run_is_counted_as_in_the_paper(shared: Path) -> None:
    """10 passes over 12 blocks of 3 children each, and every visit's start scored anew."""
    from evolq_jax.config.presets import faithful

    weights = shared / "data/weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"
    config = Experiment(quant=QuantConfig("fully_quantized"))
    config = faithful(replace(config, search=replace(config.search, passes=10)))
    setup = load_model(replace(config, model=replace(config.model, weights=str(weights))))
    assert num_total(setup) == 10 * 12 * 4
    assert searched_sites(setup) == ("blocks/attn/proj/weight", "blocks/attn/qkv/weight")


def test_inputs_of_blocks_are_of_each_segments_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bottleneck's first site is not as its input is: 8, then 32 channels at 4 x 4, twice 64 at 2 x 2."""
    entry = ENTRIES["small_resnet"]
    monkeypatch.setitem(REGISTRY, entry.name, entry)
    save_params(tmp_path / "w.safetensors", unfolded_params(entry), {"model": entry.name})
    config = small_config(tmp_path / "w.safetensors")
    config = replace(
        config,
        model=replace(config.model, name=entry.name),
        search=replace(config.search, sites=("layer2/conv*/weight",)),
    )
    parts = held(load_model(config), 100)["candidates"]
    assert parts["inputs of every block"] == 4 * 100 * ((8 + 32) * 4 * 4 + 2 * 64 * 2 * 2)
