"""Calibration, search and evaluation of every family, from a weights file and image arrays."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evolq_jax.config.presets import faithful
from evolq_jax.models.checkpoint import save_params
from evolq_jax.models.registry import REGISTRY
from evolq_jax.verbs.evaluate import run_evaluate
from evolq_jax.verbs.search.plan import plan_search
from evolq_jax.verbs.search.run import run_search
from tests.families import CLASSES, ENTRIES, SEARCHED, make_small, unfolded_params
from tests.measured import without_timing
from tests.small_run import BATCH, small_config


@pytest.mark.parametrize("name", ENTRIES)
def test_a_search_runs_and_can_be_evaluated_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTRY, name, ENTRIES[name])
    without_timing(monkeypatch, "search")
    save_params(tmp_path / "w.safetensors", unfolded_params(ENTRIES[name]), {"model": name})
    size, random = ENTRIES[name].preprocessing.size, np.random.default_rng(0)
    pixels = random.integers(0, 256, (3 * BATCH, size, size, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", image=pixels, label=np.arange(len(pixels)) % CLASSES)
    images = str(tmp_path / "images.npz")

    config = small_config(tmp_path / "w.safetensors")
    config = replace(
        config,
        model=replace(config.model, name=name),
        data=replace(config.data, calibration=images, evaluation=images),
        search=replace(config.search, passes=1),
    )
    if name == "small_swin":  # the paper's setting, with its integer LayerNorm
        config = faithful(replace(config, quant=replace(config.quant, scheme="fully_quantized")))
        config = replace(config, search=replace(config.search, batch_size=BATCH, generations=1))
    config = replace(config, search=replace(config.search, sites=SEARCHED[name]))

    plan = plan_search(config)
    result = run_search(config, tmp_path / "run")
    segments = make_small(name).parts.segments
    visits = sum(segment.length for segment in segments)
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    blocks = [(segment.name, block) for segment in segments for block in range(segment.length)]
    assert [(line["segment"], line["block"]) for line in log] == blocks[::-1]
    assert result.moves.visits == visits
    assert result.evaluations == plan.evaluations
    fitness = result.calibration_fitness
    assert fitness.final <= fitness.init
    assert 0 < result.init.kl < np.inf
    again = run_evaluate(tmp_path / "run")
    assert again.final is not None
    assert again.final.kl == pytest.approx(result.final.kl, rel=1e-6)
