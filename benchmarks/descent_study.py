"""The comparison of search with gradient descent in docs/results.md: real networks, one init, one budget.

    python -m benchmarks.descent_study --data ../shared/data --out runs/descent_study --subject cifar_vit

Learning rates are tuned first, at seed 0, by the fitness on calibration images; then every method runs with
every seed (`evolq compare`). Finished runs are not run again. Prints the table in Markdown.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cifar import NAMES, cifar
from benchmarks.vit_tiny_study import make_config
from evolq_jax.comparison import Comparison, Method, greedy
from evolq_jax.config import BaselineConfig, Experiment
from evolq_jax.experiment.compare.run import run_compare
from evolq_jax.experiment.resume import ensure_baseline
from evolq_jax.report import make_watcher

LEARNING_RATES = {
    "adam": (0.003, 0.01, 0.03, 0.1),
    "adamw": (0.003, 0.01, 0.03, 0.1),
    "sgd": (1.0, 10.0, 100.0, 1000.0, 10000.0),
}
BUDGET = {"cifar_vit": 10_000, "cifar_resnet20": 10_000, "vit_tiny": 8_000}
METRICS = {"calibration_fitness": "{:.4f}", "kl": "{:.4f}", "agreement": "{:.1f}", "top1": "{:.1f}"}
PERCENT = ("agreement", "top1")


def make(data: Path, subject: str, weight_bits: int, activation_bits: int) -> Experiment:
    """The experiment that all methods share."""
    if subject in NAMES:
        return cifar(data, subject, weight_bits, activation_bits)
    config = make_config(data, weight_bits, "matmul", "default", 0)
    return replace(config, quant=replace(config.quant, activation_bits=activation_bits))


def tuned(config: Experiment, optimizer: str, budget: int, out: Path) -> Experiment:
    """The config with the optimiser at the learning rate with the best fitness on calibration images."""

    def fitness(rate: float) -> float:
        baseline = BaselineConfig(optimizer=optimizer, learning_rate=rate, budget=budget)
        few = replace(config.data, num_evaluation=10)  # the evaluation set selects nothing
        trial = replace(config, data=few, baseline=baseline, seed=0)
        with make_watcher() as watcher:
            result = ensure_baseline(trial, out / "tuning" / f"{optimizer}-{rate}", watcher)
        return result["calibration_fitness"]["final"]

    best = min(LEARNING_RATES[optimizer], key=fitness)
    print(f"{optimizer}: learning rate {best}", flush=True)
    return replace(config, baseline=BaselineConfig(optimizer=optimizer, learning_rate=best))


def comparison(config: Experiment, budget: int, seeds: tuple[int, ...], out: Path) -> Comparison:
    """Greedy, the default search, three optimisers, and Adam and search one after the other."""
    adam = tuned(config, "adam", budget, out)
    methods = (
        Method("greedy", replace(config, search=greedy(config.search))),
        Method("search", config),
        Method("sgd", tuned(config, "sgd", budget, out), ("baseline",)),
        Method("adam", adam, ("baseline",)),
        Method("adamw", tuned(config, "adamw", budget, out), ("baseline",)),
        Method("adam, search", adam, ("baseline", "search")),
        Method("search, adam", adam, ("search", "baseline")),
    )
    return Comparison(out.name, methods, "greedy", seeds, budget, milestones=1)


def table(summary: dict[str, Any]) -> str:
    """Markdown: means over seeds, the change with its interval, wins against init and greedy."""
    lines = [
        "| method | fitness | KL to float | change of KL [95 %] | wins | agreement % | top-1 % | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    seeds = len(summary["seeds"])
    first = next(iter(summary["methods"].values()))
    rows = {"init": {metric: {"final": first[metric]["init"]} for metric in METRICS}, **summary["methods"]}
    for name, numbers in rows.items():
        cells = {
            metric: form.format((100 if metric in PERCENT else 1) * numbers[metric]["final"]["mean"])
            for metric, form in METRICS.items()
        }
        change = wins = seconds = ""
        if "change" in numbers["kl"]:
            mean, low, high = (numbers["kl"]["change"][key] for key in ("mean", "low", "high"))
            change = f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
            wins = ", ".join(f"{share * seeds:.0f}/{seeds}" for share in numbers["kl"]["wins"].values())
            seconds = f"{numbers['seconds_search']:.0f}"
        cells_text = f"{cells['calibration_fitness']} | {cells['kl']} | {change} | {wins}"
        lines.append(f"| {name} | {cells_text} | {cells['agreement']} | {cells['top1']} | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    """Tunes, compares, prints."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/descent_study"))
    parser.add_argument("--subject", choices=BUDGET, default="cifar_vit")
    parser.add_argument("--weight-bits", type=int, default=3)
    parser.add_argument("--activation-bits", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    bits = args.weight_bits, args.activation_bits
    config, budget = make(args.data, args.subject, *bits), BUDGET[args.subject]
    out = args.out / f"{args.subject}_w{bits[0]}a{bits[1]}"
    compared = comparison(config, budget, tuple(args.seeds), out)
    with make_watcher() as watcher:
        summary = run_compare(compared, out, watcher)
    print(table(summary))


if __name__ == "__main__":
    main()
