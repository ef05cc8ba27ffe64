"""The study of block reconstruction in docs/results.md: CIFAR-10 networks, from ranges to BRECQ and search.

    python -m benchmarks.cifar_study --data ../shared/data --out runs/cifar_study --tune
    python -m benchmarks.cifar_study --data ../shared/data --out runs/cifar_study

`--tune` compares settings of `brecq` on calibration images alone: half of them calibrate, the others judge.
Without it, every setting is calibrated on 500 training images drawn by the seed and scored on test images.
Finished runs are not run again, so a killed study goes on where it was. Prints tables in Markdown.
"""

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cifar import NAMES, calibration_images, cifar, halves
from benchmarks.entry import run_or_refuse, study_parser
from evolq_jax.config.experiment import BrecqConfig, CalibrationConfig, Experiment
from evolq_jax.data.cache import atomic
from evolq_jax.verbs.evaluate import run_evaluate
from evolq_jax.verbs.resume import ensure_search

BITS = {"W4A8": (4, 8), "W3A8": (3, 8), "W2A8": (2, 8), "W4A4": (4, 4)}
INITS = {
    "minmax": ("minmax", ("ranges",)),
    "omse": ("omse", ("ranges",)),
    "brecq": ("omse", ("ranges", "brecq")),
    "omse, default": ("omse", ("ranges",)),
}
# What the search of an init is called: the default search's visits alone, or all of it. After `brecq` it is
# the same.
SEARCHED = {"omse": "omse, visits", "omse, default": "omse, search", "brecq": "brecq, search"}
TUNING = BrecqConfig(fisher=False)
BRECQ = replace(TUNING, steps=1000)  # what tuning said
TUNED = (  # what else was tried
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
        search=replace(config.search, output_start=init == "omse, default"),
        seed=seed,
    )


def run(config: Experiment, init: str, out: Path) -> dict[str, Any]:
    """A setting's result: of the search that starts there, or of the init alone."""
    if init in SEARCHED:
        return ensure_search(config, out)
    file = out.with_name(f"{out.name}.json")
    if not file.is_file():
        began = time.monotonic()
        result = run_evaluate(config) | {"seconds": round(time.monotonic() - began, 1)}
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file) as open_file:
            open_file.write((json.dumps(result) + "\n").encode())
    return json.loads(file.read_text())


def table(results: dict[tuple[str, str, str], list[dict[str, Any]]]) -> str:
    """Markdown: of all seeds top-1 (mean, lowest to highest) and mean KL, a column for each set of scales."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for (subject, bits, init), runs in results.items():
        cells = rows.setdefault((subject, bits), {})
        cells.setdefault("float", f"{100 * runs[0]['float']['top1']:.1f}")
        if init != "omse, default":  # the same as `omse`
            cells[init] = cell([r["init"] for r in runs])
        if init in SEARCHED:
            cells[SEARCHED[init]] = cell([r["final"] for r in runs])
    head = ["network", "bits", *next(iter(rows.values()))]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join([*names, *cells.values()]) + " |" for names, cells in rows.items()]
    return "\n".join(lines)


def cell(scores: list[dict[str, float]]) -> str:
    """One setting's numbers."""
    top1 = [100 * s["top1"] for s in scores]
    kl = float(np.mean([s["kl"] for s in scores]))
    return f"{np.mean(top1):.1f} ({min(top1):.1f} to {max(top1):.1f}), {kl:.3g}"


def changes(results: dict[tuple[str, str, str], list[dict[str, Any]]]) -> str:
    """Markdown: what the search changed, by seed with its interval over images, and what it took."""
    lines = [
        "| network | bits | scales | KL change by seed [95 %] | calibration s, least | search s, least |",
        "|---|---|---|---|---|---|",
    ]
    for (subject, bits, init), runs in results.items():
        if init in SEARCHED:
            deltas = [r["delta"]["kl"] for r in runs]
            kl = "; ".join(f"{d['mean']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]" for d in deltas)
            seconds = [f"{min(r[f'seconds_{what}'] for r in runs):.0f}" for what in ("calibration", "search")]
            lines.append("| " + " | ".join([subject, bits, SEARCHED[init], kl, *seconds]) + " |")
    return "\n".join(lines)


def tune(data: Path, subjects: list[str], bits: list[str], out: Path) -> None:
    """Prints the KL on judging images for each setting of `brecq`."""
    calibrate, judge = halves(calibration_images(data), out)
    print("| network | bits | setting | KL | seconds |\n|---|---|---|---|---|")
    for subject, number, change in itertools.product(subjects, bits, TUNED):
        config = make(data, subject, number, "brecq", 0)
        files = replace(config.data, calibration=calibrate, evaluation=judge, num_evaluation=None)
        calibration = replace(config.calibration, brecq=replace(TUNING, **change))
        name = "-".join([subject, number, *(f"{key}={value}" for key, value in change.items())])
        result = run(replace(config, data=files, calibration=calibration), "", out / name)
        setting = ", ".join(f"{key} {value}" for key, value in change.items()) or "default"
        cells = f"{result['init']['kl']:.4f} | {result['seconds']:.0f}"
        print(f"| {subject} | {number} | {setting} | {cells} |", flush=True)


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = study_parser(__doc__, "cifar_study")
    parser.add_argument("--subjects", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--bits", nargs="+", choices=BITS, default=list(BITS))
    parser.add_argument("--inits", nargs="+", choices=INITS, default=list(INITS))
    parser.add_argument("--tune", action="store_true")
    args = parser.parse_args()
    if args.tune:
        tune(args.data, args.subjects, args.bits, args.out / "tuning")
        return
    results: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for seed, subject, bits, init in itertools.product(args.seeds, args.subjects, args.bits, args.inits):
        out = args.out / f"{subject}-{bits}-{init.replace(', ', '-')}-{seed}"
        result = run(make(args.data, subject, bits, init, seed), init, out)
        print(out.name, result["init"], result.get("final"), flush=True)
        results.setdefault((subject, bits, init), []).append(result)
    print(table(results), changes(results), sep="\n\n")


if __name__ == "__main__":
    run_or_refuse(main)
