"""What a search adds to `strong` in docs/results.md: on the images that corrected the weights, and on others.

    python -m benchmarks.after_strong --data ../shared/data --out runs/study

The first search is the preset itself (`vit_tiny_study --presets strong`, whose runs this shares); the second
starts from its result with as many images that calibration has not seen. Finished runs are not run again.
Prints the table in Markdown.
"""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.entry import run_or_refuse, study_parser
from benchmarks.vit_tiny_study import make_config, name
from evolq_jax.cli.progress import make_watcher
from evolq_jax.config.experiment import Experiment
from evolq_jax.data import load_images
from evolq_jax.data.cache import atomic
from evolq_jax.models.registry import get_entry
from evolq_jax.verbs.resume import ensure_search

BITS = (4, 3)
EVALUATED = 500  # of the validation images, the same for every seed


def other_images(config: Experiment, out: Path) -> str:
    """A file of as many images as calibrate, drawn by the same seed from those that do not."""
    file = out / f"others-seed{config.seed}.npz"
    if not file.is_file():
        source, preprocessing = config.data.calibration, get_entry(config.model.name).preprocessing
        number = config.data.num_calibration
        seen = set(load_images(source, preprocessing, num=number, seed=config.seed, cache_dir=None).names)
        images = load_images(source, preprocessing, cache_dir=None)
        unseen = [row for row, image in enumerate(images.names) if image not in seen]
        rows = np.random.default_rng(config.seed).choice(unseen, number, replace=False)
        with atomic(file) as open_file:
            np.savez(open_file, image=np.asarray(images.pixels)[np.sort(rows)])
    return str(file)


def row(bits: int, images: str, runs: list[dict[str, Any]]) -> str:
    """One search's row: the seeds side by side."""
    changes = [run["delta"]["kl"] for run in runs]
    ends = [run["calibration_fitness"] for run in runs]
    cells = [
        f"W{bits}A8",
        images,
        "; ".join(f"{end['init']:.4f} → {end['final']:.4f}" for end in ends),
        f"{np.mean([run['init']['kl'] for run in runs]):.4f}",
        "; ".join(f"{c['mean']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}]" for c in changes),
        "; ".join(f"{run['moves']['kept']} of {run['moves']['visits']}" for run in runs),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Runs what is missing, then prints the table."""
    args = study_parser(__doc__, "study").parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for seed, bits in itertools.product(args.seeds, BITS):
        config = make_config(args.data, bits, "matmul", "strong", seed)
        first = args.out / name(bits, "matmul", "strong", seed)
        data = replace(config.data, calibration=other_images(config, args.out), num_evaluation=EVALUATED)
        again, others = replace(config, start=str(first), data=data), first.with_name(f"{first.name}-others")
        for images, each, run_dir in (("the same", config, first), ("others", again, others)):
            with make_watcher() as watcher:
                rows.setdefault((bits, images), []).append(ensure_search(each, run_dir, watcher))
    print("| bits | images | fitness there, by seed | KL of init | KL change by seed [95 %] | moves kept |")
    print("|---|---|---|---|---|---|")
    for (bits, images), runs in sorted(rows.items(), reverse=True):
        print(row(bits, images, runs))


if __name__ == "__main__":
    run_or_refuse(main)
