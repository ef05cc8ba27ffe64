"""Finished runs are found again. Others are run, or continued after a kill."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from evolq_jax.cli.progress import make_watcher
from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.metrics import mean_scores, score
from evolq_jax.paths import atomic
from evolq_jax.pipeline.calibrate import calibrate_setup
from evolq_jax.pipeline.images import load_evaluation
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.watcher import Silent
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.runs.results.networks import SearchResult
from evolq_jax.verbs.search.run import ensure_search

Row = dict[str, Any]  # what a study keeps of a setting in a file of its own


def searched(config: Experiment, run_dir: Path) -> SearchResult:
    """The result of a search. If the search has finished, it is read from its directory.

    Raises:
      UserError: as `run_search`; or the directory holds a finished run of another config.
    """
    with make_watcher() as watcher:
        return ensure_search(config, run_dir, watcher)


def vit_tiny_run(bits: int, scheme: str, preset: str, seed: int) -> str:
    """The name of the directory of a search that several studies share."""
    return f"w{bits}a8-{scheme}-{preset}-seed{seed}"


def kept(file: Path, make: Callable[[], Row]) -> Row:
    """The row that a JSON file holds. Without a file, it is made and written."""
    if not file.is_file():
        row = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file) as open_file:
            open_file.write((json.dumps(row) + "\n").encode())
        print(file.stem, row, flush=True)
    return json.loads(file.read_text())


def calibrated_inits(out: Path, wanted: Iterable[tuple[dict[str, Any], Experiment]]) -> list[Row]:
    """What each (key, config) scores when calibrated, without a search; `out` has a file for each key."""
    out.mkdir(parents=True, exist_ok=True)
    teacher: dict[str, np.ndarray] = {}
    rows: list[Row] = []
    for key, config in wanted:
        name = "-".join(map(str, key.values())).replace(" ", "_")
        rows.append(kept(out / f"{name}.json", partial(_init, key, config, teacher)))
    return rows


def _init(key: dict[str, Any], config: Experiment, teacher: dict[str, np.ndarray]) -> Row:
    """Calibrates and scores, under the key; `teacher` keeps the float network's logits between settings."""
    with matmul_precision(config.precision):
        setup = load_model(config)
        evaluation = load_evaluation(setup)
        if "logits" not in teacher:
            teacher["logits"] = compute_logits(setup.model, evaluation.pixels, 20)
        jax.clear_caches()
        began = time.monotonic()
        calibrated = calibrate_setup(setup, Silent(), for_search=False)
        seconds = time.monotonic() - began
        logits = compute_logits(calibrated.quantized, evaluation.pixels, 20)
    scores = asdict(mean_scores(score(logits, teacher["logits"], evaluation.labels)))
    return key | scores | {"seconds": round(seconds, 1), "num_evaluation_images": len(evaluation.pixels)}
