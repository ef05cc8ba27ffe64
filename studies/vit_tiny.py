"""ViT-Tiny at W4A8 and W3A8, both schemes, every preset, three seeds; docs/results.md.

    python -m studies.vit_tiny --data ../shared/data --out runs/study

`faithful` gets about as many candidate-images as `plain` spends. Finished runs are not repeated, so a killed
study goes on where it was. Prints the table in Markdown.
"""

import itertools
from pathlib import Path

import numpy as np

from evolq_jax.runs.directory import RESULT
from evolq_jax.runs.results.files import read_result
from evolq_jax.runs.results.networks import SearchResult
from studies.common.entry import run_or_refuse, study_parser
from studies.common.runs import searched, vit_tiny_run
from studies.common.subjects import PRESETS, SCHEMES, vit_tiny
from studies.common.tables import changes, markdown, mean, means

BITS = (4, 3)
HEAD = (
    *("bits", "scheme", "preset", "top-1 init → final", "agreement", "KL init → final", "KL %"),
    *("KL change by seed [95 %]", "top-1 change by seed [95 %]", "candidate-images", "search s", "all s"),
)


def table(out: Path, seeds: list[int]) -> str:
    """Markdown rows: mean over seeds, and each seed's change with its bootstrap interval."""
    rows: list[list[str]] = []
    for bits, scheme, preset in itertools.product(BITS, SCHEMES, PRESETS):
        run_dirs = [out / vit_tiny_run(bits, scheme, preset, seed) for seed in seeds]
        runs = [read_result(run_dir, SearchResult) for run_dir in run_dirs if (run_dir / RESULT).is_file()]
        if runs:
            rows.append([f"W{bits}A8", scheme, preset, *cells(runs)])
    return markdown(HEAD, rows)


def cells(runs: list[SearchResult]) -> list[str]:
    """One setting's numbers."""
    return [
        means(runs, "top1", digits=1, factor=100),
        means(runs, "agreement", digits=1, factor=100),
        means(runs, "kl", digits=3),
        f"{100 * (mean(runs, 'final', 'kl') / mean(runs, 'init', 'kl') - 1):+.0f}",
        changes(runs, "kl", digits=3),
        changes(runs, "top1", digits=1, factor=100),
        f"{np.mean([run.budget_spent for run in runs]):,.0f}",
        f"{np.mean([run.seconds_search for run in runs]):.0f}",
        f"{np.mean([run.seconds for run in runs]):.0f}",
    ]


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = study_parser(__doc__, "study")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    args = parser.parse_args()
    for seed, bits, scheme, preset in itertools.product(args.seeds, BITS, args.schemes, args.presets):
        run_dir = args.out / vit_tiny_run(bits, scheme, preset, seed)
        result = searched(vit_tiny(args.data, bits, scheme, preset, seed), run_dir)
        print(run_dir.name, result.init, result.final, result.seconds, flush=True)
    print(table(args.out, args.seeds))


if __name__ == "__main__":
    run_or_refuse(main)
