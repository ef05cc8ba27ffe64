"""What a search adds to `strong`, on the images that corrected the weights and on others; docs/results.md.

    python -m studies.after_strong --data ../shared/data --out runs/study

The first search is the preset itself. Its runs are those of `studies.vit_tiny --presets strong`. The second
search starts from its result, with the same number of images that calibration has not seen. Finished runs are
not repeated. Prints the table in Markdown.
"""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from evolq_jax.config.experiment import Experiment
from evolq_jax.data import load_images
from evolq_jax.models.registry import get_entry
from evolq_jax.paths import atomic
from evolq_jax.runs.results.networks import SearchResult
from studies.common.entry import run_or_refuse, study_parser
from studies.common.runs import searched, vit_tiny_run
from studies.common.subjects import vit_tiny
from studies.common.tables import changes, markdown, mean

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


def row(bits: int, images: str, runs: list[SearchResult]) -> list[str]:
    """One search's row: the seeds side by side."""
    ends = [run.calibration_fitness for run in runs]
    return [
        f"W{bits}A8",
        images,
        "; ".join(f"{end.init:.4f} → {end.final:.4f}" for end in ends),
        f"{mean(runs, 'init', 'kl'):.4f}",
        changes(runs, "kl", digits=4),
        "; ".join(f"{run.moves.kept} of {run.moves.visits}" for run in runs),
    ]


def main() -> None:
    """Runs what is missing, then prints the table."""
    args = study_parser(__doc__, "study").parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[int, str], list[SearchResult]] = {}
    for seed, bits in itertools.product(args.seeds, BITS):
        config = vit_tiny(args.data, bits, "matmul", "strong", seed)
        first = args.out / vit_tiny_run(bits, "matmul", "strong", seed)
        data = replace(config.data, calibration=other_images(config, args.out), num_evaluation=EVALUATED)
        again, others = replace(config, start=str(first), data=data), first.with_name(f"{first.name}-others")
        for images, each, run_dir in (("the same", config, first), ("others", again, others)):
            found.setdefault((bits, images), []).append(searched(each, run_dir))
    head = "bits", "images", "fitness there, by seed", "KL of init", "KL change by seed [95 %]", "moves kept"
    print(markdown(head, [row(*key, runs) for key, runs in sorted(found.items(), reverse=True)]))


if __name__ == "__main__":
    run_or_refuse(main)
