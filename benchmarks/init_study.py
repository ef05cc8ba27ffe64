"""The study of initialisations in docs/results.md: ViT-Tiny before any search, by bits, scheme and preset.

    python -m benchmarks.init_study --data ../shared/data --out runs/init_study

Every setting is calibrated on 128 images drawn by the seed and scored on all validation images. Finished
settings are not run again, so a killed study goes on where it was. Prints the tables in Markdown.
"""

import itertools
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.entry import run_or_refuse, study_parser
from benchmarks.vit_tiny_study import make_config
from evolq_jax.config.experiment import CalibrationConfig, Experiment, QuantConfig
from evolq_jax.config.presets import faithful, fast, strong
from evolq_jax.data.cache import atomic
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.metrics import score, summary
from evolq_jax.pipeline.calibrate import calibrate
from evolq_jax.pipeline.images import load_evaluation
from evolq_jax.pipeline.load import load_model
from evolq_jax.pipeline.logits import compute_logits
from evolq_jax.pipeline.watcher import Silent

IMAGES, ALL_IMAGES = 128, 1000
BATCH = {32: 32, IMAGES: 64, ALL_IMAGES: 100}
IMAGE_CHUNK = {32: 16, IMAGES: 16, ALL_IMAGES: 20}
BITS: dict[str, dict[str, Any]] = {
    "W8A8": {"weight_bits": 8, "activation_bits": 8},
    "W6A6": {"weight_bits": 6, "activation_bits": 6},
    "W4A8": {"weight_bits": 4, "activation_bits": 8},
    "W3A8": {"weight_bits": 3, "activation_bits": 8},
    "W4A4": {"weight_bits": 4, "activation_bits": 4},
    "W4A4, softmax 8": {"weight_bits": 4, "activation_bits": 4, "softmax_bits": 8},
    "W3A3": {"weight_bits": 3, "activation_bits": 3},
}
PRESETS = {"faithful": faithful, "fast": fast, "strong": strong}
SCHEMES = ("matmul", "fully_quantized")


def settings(seeds: list[int]) -> list[tuple[str, str, str, int]]:
    """(scheme, bits, preset, seed) of every run, the most wanted first."""
    return [
        (scheme, bits, preset, seed)
        for seed, scheme, bits, preset in itertools.product(seeds, SCHEMES, BITS, PRESETS)
    ]


def make(data: Path, scheme: str, bits: str, preset: str, seed: int) -> Experiment:
    """One setting's config."""
    return PRESETS[preset](with_setting(make_config(data, 4, scheme, "plain", seed), scheme, bits))


def with_setting(config: Experiment, scheme: str, bits: str, images: int = IMAGES) -> Experiment:
    """The config at these bits, calibrated with plain ranges on so many images."""
    return replace(
        config,
        data=replace(config.data, num_calibration=images),
        calibration=CalibrationConfig(batch_size=BATCH[images], image_chunk=IMAGE_CHUNK[images]),
        quant=QuantConfig(scheme, **BITS[bits]),  # type: ignore[arg-type]
    )


def run(config: Experiment, teacher: dict[str, np.ndarray]) -> dict[str, Any]:
    """Calibrates and scores; `teacher` keeps the float network's logits between settings."""
    with matmul_precision(config.precision):
        setup = load_model(config)
        evaluation = load_evaluation(setup)
        parts, preprocessing = setup.model.parts, setup.model.preprocessing
        if "logits" not in teacher:
            teacher["logits"] = compute_logits(
                parts, (), preprocessing, setup.model.params, {}, evaluation.pixels, 20
            )
        jax.clear_caches()
        began = time.monotonic()
        calibrated = calibrate(setup, Silent(), for_search=False)
        seconds = time.monotonic() - began
        arguments = setup.specs, preprocessing, calibrated.params, calibrated.qparams, evaluation.pixels, 20
        logits = compute_logits(parts, *arguments)
    scores = summary(score(logits, teacher["logits"], evaluation.labels))
    return scores | {"seconds": round(seconds, 1), "num_evaluation_images": len(evaluation.pixels)}


def run_missing(out: Path, wanted: Iterable[tuple[dict[str, Any], Experiment]]) -> list[dict[str, Any]]:
    """The result of each (key, config), from its file in `out`, which is written where it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    teacher: dict[str, np.ndarray] = {}
    results: list[dict[str, Any]] = []
    for key, config in wanted:
        file = out / ("-".join(map(str, key.values())).replace(" ", "_") + ".json")
        if not file.is_file():
            result = run(config, teacher)
            with atomic(file) as open_file:
                open_file.write((json.dumps(key | result) + "\n").encode())
            print(file.stem, result, flush=True)
        results.append(json.loads(file.read_text()))
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: mean over seeds, with the lowest and highest top-1."""
    lines = [
        "| scheme | bits | preset | seeds | top-1 (lowest to highest) | agreement | KL | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    keys = list(dict.fromkeys((r["scheme"], r["bits"], r["name"]) for r in results))
    for scheme, bits, name in sorted(keys, key=lambda k: (k[0] != "matmul", list(BITS).index(k[1]))):
        rows = [r for r in results if (r["scheme"], r["bits"], r["name"]) == (scheme, bits, name)]
        lines.append(f"| {scheme} | {bits} | {name} | {len(rows)} | {' | '.join(cells(rows))} |")
    return "\n".join(lines)


def cells(runs: list[dict[str, Any]]) -> list[str]:
    """Top-1 (with its range over seeds), agreement, KL and seconds of a setting."""
    top1 = [100 * run["top1"] for run in runs]
    agreement, kl, seconds = (np.mean([run[key] for run in runs]) for key in ("agreement", "kl", "seconds"))
    spread = f" ({min(top1):.1f} to {max(top1):.1f})" if len(runs) > 1 else ""
    return [f"{np.mean(top1):.1f}{spread}", f"{100 * agreement:.1f}", f"{kl:.3f}", f"{seconds:.0f}"]


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = study_parser(__doc__, "init_study")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES, help="those rows alone")
    parser.add_argument("--bits", nargs="+", choices=BITS, default=BITS, help="those rows alone")
    args = parser.parse_args()
    wanted = (
        (
            {"scheme": scheme, "bits": bits, "name": name, "seed": seed},
            make(args.data, scheme, bits, name, seed),
        )
        for scheme, bits, name, seed in settings(args.seeds)
        if scheme in args.schemes and bits in args.bits
    )
    print(table(run_missing(args.out, wanted)))


if __name__ == "__main__":
    run_or_refuse(main)
