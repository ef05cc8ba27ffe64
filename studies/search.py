"""The search's menu, one thing changed at a time, with one init and one budget; docs/results.md.

    python -m studies.search --data ../shared/data --out runs/search_study --subject cifar_vit

Only calibration images take part, so that the study may choose the default: the seed draws those that
calibrate from one half, and the other half judges. Finished runs are not repeated. Prints the table in
Markdown.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from evolq_jax.cli.progress import make_watcher
from evolq_jax.config.comparison import Comparison, Method, greedy
from evolq_jax.config.experiment import Experiment, SearchConfig
from evolq_jax.config.presets import plain
from evolq_jax.runs.results.comparison import ComparisonResult
from evolq_jax.search.config import ATTENTION_WEIGHTS
from evolq_jax.verbs.compare.run import run_compare
from studies.common.entry import run_or_refuse, study_parser
from studies.common.subjects import cifar, on_halves, vit_tiny
from studies.common.tables import markdown

BITS = {"W4A8": (4, 8), "W3A8": (3, 8), "W4A4": (4, 4)}
BUDGET = {"cifar_vit": 8_000, "vit_tiny": 3_000}
CALIBRATED = {"cifar_vit": 200, "vit_tiny": 100}
JUDGED = {"cifar_vit": None, "vit_tiny": 300}  # of the other half, the same for every seed
ACTIVATIONS = ("*/norm?", "*/attn/[qkv]", "*/softmax", "*/context", "*/gelu")
GROUPED = {"parametrization": "log_per_group"}
CHANGES: dict[str, dict[str, Any]] = {
    "default": {},
    "squared error, KL held out": {"fitness": "mse", "holdout_fitness": "kl"},
    # what is searched
    "attention weights": {"sites": ATTENTION_WEIGHTS},
    "all weights": {"sites": ("*/weight",)},
    "activations": {"sites": ACTIVATIONS},
    "zero points too": {"zero_points": True},
    "log ratios per group": GROUPED,
    "log ratios per channel": {"parametrization": "log"},
    "two blocks at once": {"blocks_per_visit": 2},
    # how
    "EvolQ, relative": {
        "algorithm": "EvolQ",
        "parametrization": "raw",
        "epsilon": 0.05,
        "population_size": 1,
        "generations": 12,
    },
    "OnePlusLambda": {"algorithm": "OnePlusLambda"},
    "OnePlusLambda, a third": {"algorithm": "OnePlusLambda", "density": 0.33},
    "CMA-ES": {"algorithm": "CMA_ES"},
    "Sep-CMA-ES": {"algorithm": "Sep_CMA_ES"},
    "OpenES": {"algorithm": "Open_ES"},
    "differential evolution": {"algorithm": "DifferentialEvolution"},
    "SimpleGA": {"algorithm": "SimpleGA"},
    "PSO": {"algorithm": "PSO"},
    "grid alone": {"algorithm": "Grid", "generations": 1, "population_size": 4},
    "grid first": {"grid_start": 1},
    "four generations of twelve": {"generations": 4, "population_size": 12},
    "smaller steps": {"epsilon": 0.03},
    "larger steps": {"epsilon": 0.2},
    # what is scored
    "infoNCE, T = 3": {"fitness": "info_nce"},
    "infoNCE, T = 0.3": {"fitness": "info_nce", "temperature": 0.3},
    "infoNCE, T = 0.05": {"fitness": "info_nce", "temperature": 0.05},
    "cosine": {"fitness": "cosine"},
    "centred cosine": {"fitness": "centred_cosine"},
    "squared error": {"fitness": "mse"},
    "KL of the first classes": {"fitness": "top_k_kl", "top_k": 3},
    "local": {"fitness": "local", "holdout_fitness": "kl"},
    "KL + 0.5 local": {"fitness": "kl+0.5*local", "holdout_fitness": "kl"},
    "KL + 2 local": {"fitness": "kl+2*local", "holdout_fitness": "kl"},
    # on which images
    "no holdout": {"holdout": 0.0},
    "a quarter held out": {"holdout": 0.25},
}
IMAGES = (100, 400)


def make(data: Path, subject: str, bits: str, out: Path) -> Experiment:
    """The experiment that all methods share, on the two halves of the calibration images."""
    if subject == "vit_tiny":
        config = vit_tiny(data, BITS[bits][0], "matmul", "plain", 0)
        config = replace(config, quant=replace(config.quant, activation_bits=BITS[bits][1]))
    else:
        config = plain(cifar(data, subject, *BITS[bits]))
    config = on_halves(config, out)
    numbers = {"num_calibration": CALIBRATED[subject], "num_evaluation": JUDGED[subject]}
    return replace(config, data=replace(config.data, **numbers))


def methods(config: Experiment, names: list[str]) -> tuple[Method, ...]:
    """Greedy, the changes, and other numbers of calibration images."""

    def with_search(search: SearchConfig) -> Experiment:
        return replace(config, search=search)

    rows = {"greedy": with_search(greedy(config.search))}
    rows |= {name: with_search(replace(config.search, **change)) for name, change in CHANGES.items()}
    for number in IMAGES:
        rows[f"{number} images"] = replace(rows["default"], data=replace(config.data, num_calibration=number))
    return tuple(Method(name, row) for name, row in rows.items() if not names or name in names)


def table(result: ComparisonResult) -> str:
    """Markdown: means over seeds, in the study's order."""
    rows: list[list[str]] = []
    for name, method in result.methods.items():
        kl, fitness = method.kl, method.calibration_fitness
        start, end = kl.init.mean, kl.final.mean
        cells = [
            f"{fitness.init.mean:.4f} → {fitness.final.mean:.4f}",
            f"{start:.4f} → {end:.4f}",
            f"{100 * (end / start - 1):+.1f}",
            f"{kl.wins.init * len(result.seeds):.0f} of {len(result.seeds)}",
            f"{method.seconds_search:.0f}",
        ]
        rows.append([name, *cells])
    head = (
        "change",
        "calibration fitness",
        "KL, judged",
        "change of KL %",
        "seeds better than init",
        "seconds",
    )
    return markdown(head, rows)


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = study_parser(__doc__, "search_study")
    parser.add_argument("--subject", choices=BUDGET, default="cifar_vit")
    parser.add_argument("--bits", choices=BITS, default="W3A8")
    parser.add_argument("--budget", type=int)
    parser.add_argument("--only", nargs="+", default=[], help="names of changes; none: all")
    args = parser.parse_args()
    out = args.out / f"{args.subject}_{args.bits.lower()}"
    config = make(args.data, args.subject, args.bits, args.out / args.subject)
    budget = args.budget or BUDGET[args.subject]
    chosen = methods(config, args.only)
    with make_watcher() as watcher:
        result = run_compare(
            Comparison(out.name, chosen, None, tuple(args.seeds), budget, milestones=1, varies=("data",)),
            out,
            watcher,
        )
    print(table(result))


if __name__ == "__main__":
    run_or_refuse(main)
