"""The study of docs/results.md: ViT-Tiny at W4A8 and W3A8, both schemes, every preset, three seeds.

    python benchmarks/vit_tiny_study.py --data ../shared/data --out runs/study

`faithful` gets about as many candidate-images as `plain` spends. Finished runs are not run again, so a
killed study goes on where it was. Prints the table in Markdown.
"""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.entry import run_or_refuse, study_parser
from evolq_jax.config.experiment import Experiment
from evolq_jax.config.load import load_config
from evolq_jax.config.presets import Preset, with_preset
from evolq_jax.verbs.search import run_search

BITS = (4, 3)
SCHEMES = ("matmul", "fully_quantized")
Named = Preset | Literal["plain"]
# `plain` is `default` from least-squares ranges of weights and min-max ranges of activations.
PRESETS: tuple[Named, ...] = ("faithful", "plain", "fast", "default", "thorough", "strong")
BUDGET = 5_300  # candidate-images of `faithful`: what `plain` spends at most
CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def make_config(data: Path, bits: int, scheme: str, preset: Named, seed: int) -> Experiment:
    """One run's config: the shipped config file with this data, scheme, preset and seed."""
    config: Experiment = load_config(CONFIGS / f"vit_tiny_w{bits}a8.py")
    images = data / "imagenet"
    config = replace(
        config,
        model=replace(
            config.model,
            weights=str(data / "weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"),
        ),
        data=replace(
            config.data,
            calibration=str(images / "calib"),
            evaluation=str(images / "val"),
            class_index=str(images / "synsets.txt"),
            evaluation_resize=None,
        ),
        quant=replace(config.quant, scheme=scheme),
        seed=seed,
    )
    if preset == "plain":
        return replace(config, quant=replace(config.quant, activation_observer="minmax"))
    config = with_preset(config, preset)
    if preset == "faithful":
        config = replace(config, search=replace(config.search, budget=BUDGET))
    return config


def table(out: Path, seeds: list[int]) -> str:
    """Markdown rows: mean over seeds, and each seed's change with its bootstrap interval."""
    lines = [
        "| bits | scheme | preset | top-1 init → final | agreement | KL init → final | KL % "
        "| KL change by seed [95 %] | top-1 change by seed [95 %] | candidate-images | search s | all s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for bits, scheme, preset in itertools.product(BITS, SCHEMES, PRESETS):
        files = [out / name(bits, scheme, preset, seed) / "result.json" for seed in seeds]
        runs = [json.loads(file.read_text()) for file in files if file.is_file()]
        if runs:
            lines.append(row(bits, scheme, preset, runs))
    return "\n".join(lines)


def row(bits: int, scheme: str, preset: str, runs: list[dict[str, Any]]) -> str:
    """One setting's row."""

    def mean(network: str, metric: str, factor: float) -> float:
        return factor * float(np.mean([run[network][metric] for run in runs]))

    def changes(metric: str, factor: float, digits: int) -> str:
        def cell(delta: dict[str, float]) -> str:
            middle, low, high = (f"{factor * delta[key]:+.{digits}f}" for key in ("mean", "low", "high"))
            return f"{middle} [{low}, {high}]"

        return "; ".join(cell(run["delta"][metric]) for run in runs)

    cells = [
        f"W{bits}A8",
        scheme,
        preset,
        f"{mean('init', 'top1', 100):.1f} → {mean('final', 'top1', 100):.1f}",
        f"{mean('init', 'agreement', 100):.1f} → {mean('final', 'agreement', 100):.1f}",
        f"{mean('init', 'kl', 1):.3f} → {mean('final', 'kl', 1):.3f}",
        f"{100 * (mean('final', 'kl', 1) / mean('init', 'kl', 1) - 1):+.0f}",
        changes("kl", 1, 3),
        changes("top1", 100, 1),
        f"{np.mean([run['budget_spent'] for run in runs]):,.0f}",
        f"{np.mean([run['seconds_search'] for run in runs]):.0f}",
        f"{np.mean([run['seconds'] for run in runs]):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def name(bits: int, scheme: str, preset: str, seed: int) -> str:
    """A run's directory."""
    return f"w{bits}a8-{scheme}-{preset}-seed{seed}"


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = study_parser(__doc__, "study")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    args = parser.parse_args()
    for seed, bits, scheme, preset in itertools.product(args.seeds, BITS, args.schemes, args.presets):
        run_dir = args.out / name(bits, scheme, preset, seed)
        if not (run_dir / "result.json").is_file():
            result = run_search(make_config(args.data, bits, scheme, preset, seed), run_dir)
            print(run_dir.name, result["init"], result["final"], result["seconds"], flush=True)
    print(table(args.out, args.seeds))


if __name__ == "__main__":
    run_or_refuse(main)
