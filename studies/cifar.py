"""Block reconstruction on CIFAR-10 networks, from ranges to BRECQ and search; docs/results.md.

    python -m studies.cifar --data ../shared/data --out runs/cifar_study --tune
    python -m studies.cifar --data ../shared/data --out runs/cifar_study

`--tune` compares settings of `brecq` on calibration images alone: one half calibrates, the other half judges.
Without it, every setting is calibrated on 500 training images, drawn by the seed, and scored on test images.
Finished runs are not repeated, so a killed study goes on where it was. Prints tables in Markdown.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from evolq_jax.config.experiment import BrecqConfig, CalibrationConfig, Experiment
from evolq_jax.runs.results.networks import EvaluationResult, SearchResult
from evolq_jax.runs.typed_json import from_plain, to_plain
from evolq_jax.verbs.evaluate import run_evaluate
from studies.common.entry import run_or_refuse, study_parser
from studies.common.runs import Row, kept, searched
from studies.common.subjects import CIFAR, cifar, on_halves
from studies.common.tables import changes, markdown, mean, spread

# By network, bits and init, one for each seed.
Results = dict[tuple[str, str, str], list[SearchResult | EvaluationResult]]

BITS = {"W4A8": (4, 8), "W3A8": (3, 8), "W2A8": (2, 8), "W4A4": (4, 4)}
INITS = {
    "minmax": ("minmax", ("ranges",)),
    "omse": ("omse", ("ranges",)),
    "brecq": ("omse", ("ranges", "brecq")),
    "outputs": ("omse", ("ranges", "own_output")),
}
# What the search of an init is called.
SEARCHED = {"omse": "omse, search", "outputs": "outputs, search", "brecq": "brecq, search"}
TUNING = BrecqConfig(fisher=False)
BRECQ = replace(TUNING, steps=1000)  # what tuning said
TUNED: tuple[dict[str, Any], ...] = (  # what else was tried
    {},
    {"regulariser": 0.1},
    {"regulariser": 1.0},
    {"regulariser": 100.0},
    {"steps": 100},
    {"steps": 1000},
    {"fisher": True},
    {"drop": 0.0},
    {"steps": 1000, "regulariser": 100.0},
    {"steps": 1000, "fisher": True},
    {"steps": 3000},
)


def make(data: Path, subject: str, bits: str, init: str, seed: int) -> Experiment:
    """One setting's config: `matmul`, per-channel weights, per-tensor activations, 8 bits at both ends."""
    observer, chain = INITS[init]
    config = cifar(data, subject, *BITS[bits])
    return replace(
        config,
        data=replace(config.data, num_calibration=500),
        quant=replace(
            config.quant,
            weight_observer=observer,  # type: ignore[arg-type]
            activation_observer=observer,  # type: ignore[arg-type]
            quantize_image=False,
        ),
        calibration=CalibrationConfig(chain=chain, brecq=BRECQ, image_chunk=50),
        seed=seed,
    )


class Evaluated(NamedTuple):
    """The scores of an init, and the seconds that calibration and scoring took."""

    result: EvaluationResult
    seconds: float


def evaluated(config: Experiment, out: Path) -> Evaluated:
    """Of a config's init; from its file where it has been scored already."""

    def evaluate() -> Row:
        began = time.monotonic()
        result = run_evaluate(config)
        return {"result": to_plain(result), "seconds": round(time.monotonic() - began, 1)}

    file = out.with_name(f"{out.name}.json")
    row = kept(file, evaluate)
    return Evaluated(from_plain(row["result"], EvaluationResult, str(file), "result"), row["seconds"])


def table(results: Results) -> str:
    """Markdown: of all seeds top-1 (mean, lowest to highest) and mean KL, a column for each set of scales."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for (subject, bits, init), runs in results.items():
        cells = rows.setdefault((subject, bits), {})
        cells.setdefault("float", f"{100 * mean(runs[:1], 'float', 'top1'):.1f}")
        cells[init] = cell(runs, "init")
        if init in SEARCHED:
            cells[SEARCHED[init]] = cell(runs, "final")
    head = "network", "bits", *next(iter(rows.values()))
    return markdown(head, [[*names, *cells.values()] for names, cells in rows.items()])


def cell(runs: Sequence[SearchResult | EvaluationResult], network: str) -> str:
    """One setting's numbers."""
    top1 = spread([100 * getattr(run, network).top1 for run in runs], digits=1)
    return f"{top1}, {mean(runs, network, 'kl'):.3g}"


def changes_table(results: Results) -> str:
    """Markdown: what the search changed, by seed with its interval over images, and what it took."""
    rows: list[list[str]] = []
    for (subject, bits, init), runs in results.items():
        searches = [run for run in runs if run.kind == "search"]
        if searches:
            calibration, search = zip(
                *((r.seconds_calibration, r.seconds_search) for r in searches), strict=True
            )
            seconds = f"{min(calibration):.0f}", f"{min(search):.0f}"
            rows.append([subject, bits, SEARCHED[init], changes(searches, "kl", digits=3), *seconds])
    head = "network", "bits", "scales", "KL change by seed [95 %]", "calibration s, least", "search s, least"
    return markdown(head, rows)


def tune(data: Path, subjects: list[str], bits: list[str], out: Path) -> None:
    """Prints the KL on judging images for each setting of `brecq`."""
    rows: list[list[str]] = []
    for subject, number, change in itertools.product(subjects, bits, TUNED):
        config = on_halves(make(data, subject, number, "brecq", 0), out)
        calibration = replace(config.calibration, brecq=replace(TUNING, **change))
        name = "-".join([subject, number, *(f"{key}={value}" for key, value in change.items())])
        found = evaluated(replace(config, calibration=calibration), out / name)
        setting = ", ".join(f"{key} {value}" for key, value in change.items()) or "default"
        rows.append([subject, number, setting, f"{found.result.init.kl:.4f}", f"{found.seconds:.0f}"])
    print(markdown(["network", "bits", "setting", "KL", "seconds"], rows))


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = study_parser(__doc__, "cifar_study")
    parser.add_argument("--subjects", nargs="+", choices=CIFAR, default=list(CIFAR))
    parser.add_argument("--bits", nargs="+", choices=BITS, default=list(BITS))
    parser.add_argument("--inits", nargs="+", choices=INITS, default=list(INITS))
    parser.add_argument("--tune", action="store_true")
    args = parser.parse_args()
    if args.tune:
        tune(args.data, args.subjects, args.bits, args.out / "tuning")
        return
    results: Results = {}
    for seed, subject, bits, init in itertools.product(args.seeds, args.subjects, args.bits, args.inits):
        out = args.out / f"{subject}-{bits}-{init.replace(', ', '-')}-{seed}"
        config = make(args.data, subject, bits, init, seed)
        result = searched(config, out) if init in SEARCHED else evaluated(config, out).result
        print(out.name, result.init, result.final, flush=True)
        results.setdefault((subject, bits, init), []).append(result)
    print(table(results), changes_table(results), sep="\n\n")


if __name__ == "__main__":
    run_or_refuse(main)
