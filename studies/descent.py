"""Search against gradient descent, with one start and one budget; docs/results.md.

    python -m studies.descent --data ../shared/data --out runs/descent_study --subject cifar_vit

All methods start from the same calibrated network (`--start`): from ranges, from ranges by outputs, from the
preset `strong`, or as the paper does. First the learning rates are tuned at seed 0, by the fitness on
held-out calibration images. Then every method runs with every seed (`evolq compare`). Prints the table in
Markdown after every seed. SIGTERM saves the current run, and a stopped study goes on. Finished runs are not
repeated.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from evolq_jax.cli.progress import make_watcher
from evolq_jax.config.comparison import Comparison, Method, Stage, greedy
from evolq_jax.config.experiment import BaselineConfig, Experiment, SearchConfig
from evolq_jax.config.load import load_config
from evolq_jax.config.presets import faithful, plain, strong
from evolq_jax.metrics import Interval
from evolq_jax.runs.preemption import Preempted
from evolq_jax.runs.results.comparison import ComparisonResult
from evolq_jax.search.config import ATTENTION_WEIGHTS
from evolq_jax.verbs.baseline import ensure_baseline
from evolq_jax.verbs.calibrate import ensure_calibrated
from evolq_jax.verbs.compare.run import run_compare
from studies.common.entry import run_or_refuse, study_parser
from studies.common.subjects import CIFAR, CONFIGS, cifar, plain_ranges, vit_tiny
from studies.common.tables import interval, markdown

# What `search` is in these tables, in full.
SEARCH = SearchConfig(
    algorithm="SNES",
    sites=("*",),
    parametrization="log_per_tensor",
    generations=2,
    population_size=6,
    epsilon=0.1,
    fitness="kl",
    batch_size=50,
    holdout=0.5,
)


def paper(config: Experiment) -> Experiment:
    """The paper's setting: everything quantized, FQ-ViT's ranges, infoNCE over the attention's weight scales.

    The teacher is the float network, and some images are held out, for all methods alike.
    """
    released = faithful(replace(config, quant=replace(config.quant, scheme="fully_quantized")))
    search = replace(config.search, sites=ATTENTION_WEIGHTS, fitness="info_nce")
    quant = replace(released.quant, bias_correction=False)
    return replace(released, search=search, quant=quant)


def tournament(config: Experiment) -> SearchConfig:
    """The released code's evolution, with the sites, fitness and held-out images that all methods have."""
    search = config.search
    return replace(
        faithful(config).search,
        sites=search.sites,
        fitness=search.fitness,
        temperature=search.temperature,
        batch_size=search.batch_size,
        holdout=search.holdout,
        teacher=search.teacher,
    )


class Subject(NamedTuple):
    """How much a run may spend, and the learning rates that are tried.

    Attributes:
      budget: candidate-images of a run.
      evaluated: images, drawn once: the same for every seed. None: all.
      rates: those that are tried. AdamW takes Adam's where it has none.
      tuned_at: the weights' bits at which rates are tried; None: those of the comparison.
    """

    budget: int
    evaluated: int | None
    rates: dict[str, tuple[float, ...]]
    tuned_at: int | None = None


CIFAR_RATES = {
    "adam": (0.003, 0.01, 0.03, 0.1),
    "adamw": (0.003, 0.01, 0.03, 0.1),
    "sgd": (1.0, 10.0, 100.0, 1000.0, 10000.0),
}
SUBJECTS = {
    "cifar_vit": Subject(10_000, 2000, CIFAR_RATES),
    "cifar_resnet20": Subject(10_000, 2000, CIFAR_RATES),
    "vit_tiny": Subject(3_000, 300, {"adam": (0.003, 0.01, 0.03), "sgd": (1.0, 10.0, 100.0)}, tuned_at=3),
    "digits": Subject(10_000, None, CIFAR_RATES),
}
START = {"ranges": plain_ranges, "outputs": plain, "strong": strong, "paper": paper}
METHODS = ("greedy", "tournament", "search", "sgd", "adam", "adamw", "adam, search", "search, adam")
SEARCHES, OPTIMIZERS = ("greedy", "tournament", "search"), ("sgd", "adam", "adamw")
METRICS = {"calibration_fitness": "{:.4f}", "kl": "{:.4f}", "agreement": "{:.1f}", "top1": "{:.1f}"}
PERCENT = ("agreement", "top1")
HEAD = "method", "fitness", "KL to float", "change of KL [95 %]", "wins", "agreement %", "top-1 %", "seconds"


def make(data: Path, subject: str, start: str, weight_bits: int, *, activation_bits: int) -> Experiment:
    """The experiment that all methods share."""
    if subject in CIFAR:
        config = cifar(data, subject, weight_bits, activation_bits)
    elif subject == "digits":
        config = load_config(CONFIGS / "digits_w2a8.py")
    else:
        config = vit_tiny(data, 4, "matmul", "plain", 0)
    bits = {"weight_bits": weight_bits, "activation_bits": activation_bits}
    search = replace(SEARCH, image_chunk=config.search.image_chunk)
    return START[start](
        replace(
            config,
            data=replace(config.data, num_evaluation=SUBJECTS[subject].evaluated),
            quant=replace(config.quant, **bits),
            search=search,
        )
    )


def tuned(config: Experiment, optimizer: str, subject: Subject, out: Path) -> BaselineConfig:
    """The optimiser at the learning rate whose result is best on held-out calibration images.

    The images descended on would choose the rate that overfits them most.
    """
    few = replace(config.data, num_evaluation=10)  # the evaluation set selects nothing
    start, like = out / "calibrated", optimizer if optimizer in subject.rates else "adam"

    def held_out(rate: float) -> float:
        baseline = BaselineConfig(optimizer=like, learning_rate=rate, budget=subject.budget)
        run = out / f"{like}-{rate}"
        tried = replace(config, data=few, baseline=baseline, seed=0, start=str(start))
        with make_watcher() as watcher:
            ensure_baseline(tried, run, watcher)
        evaluations = map(json.loads, (run / "log.jsonl").read_text().splitlines())
        kept = [each for each in evaluations if each["fitness"] == each["best_fitness"]]
        return kept[-1]["held_out_fitness"]

    with make_watcher() as watcher:
        ensure_calibrated(replace(config, data=few, seed=0), start, watcher)
    best = min(subject.rates[like], key=held_out)
    print(f"{optimizer}: learning rate {best}", flush=True)
    return BaselineConfig(optimizer=optimizer, learning_rate=best)


def comparison(
    config: Experiment, subject: Subject, names: list[str], baselines: dict[str, BaselineConfig], name: str
) -> Comparison:
    """Of the methods of these names: searches, optimisers, and both one after the other."""
    methods: list[Method] = []
    for method in names:
        parts = method.split(", ")
        stages: tuple[Stage, ...] = tuple("search" if part in SEARCHES else "baseline" for part in parts)
        baseline = next((baselines[part] for part in parts if part in baselines), config.baseline)
        own = {"greedy": greedy(config.search), "tournament": tournament(config)}
        search = own.get(method, config.search)
        methods.append(Method(method, replace(config, search=search, baseline=baseline), stages))
    reference = "greedy" if "greedy" in names else None
    return Comparison(name, tuple(methods), reference, budget=subject.budget, milestones=1)


def table(result: ComparisonResult) -> str:
    """Markdown: means over seeds, the change with its interval, wins against init and greedy."""
    first, seeds = next(iter(result.methods.values())), len(result.seeds)
    init = [cell(metric, getattr(first, metric).init) for metric in METRICS]
    rows = [["init", *init[:2], "", "", *init[2:], ""]]
    for name, method in result.methods.items():
        fitness, kl, agreement, top1 = (cell(metric, getattr(method, metric).final) for metric in METRICS)
        shares = [share for share in (method.kl.wins.init, method.kl.wins.reference) if share is not None]
        wins = ", ".join(f"{share * seeds:.0f}/{seeds}" for share in shares)
        change, seconds = interval(method.kl.change, digits=4), f"{method.seconds_search:.0f}"
        rows.append([name, fitness, kl, change, wins, agreement, top1, seconds])
    return markdown(HEAD, rows)


def cell(metric: str, number: Interval) -> str:
    """A mean over seeds."""
    return METRICS[metric].format((100 if metric in PERCENT else 1) * number.mean)


def main() -> None:
    """Tunes, compares, prints."""
    parser = study_parser(__doc__, "descent_study")
    parser.add_argument("--subject", choices=SUBJECTS, default="cifar_vit")
    parser.add_argument("--start", choices=START, default="outputs")
    parser.add_argument("--weight-bits", type=int, default=3)
    parser.add_argument("--activation-bits", type=int, default=8)
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    args = parser.parse_args()
    bits, subject = (args.weight_bits, args.activation_bits), SUBJECTS[args.subject]
    out = args.out / f"{args.subject}_w{bits[0]}a{bits[1]}_{args.start}"
    try:
        config = make(args.data, args.subject, args.start, bits[0], activation_bits=bits[1])
        optimizers = [name for name in OPTIMIZERS if any(name in each.split(", ") for each in args.methods)]
        tuned_at = subject.tuned_at or bits[0]
        like = replace(config, quant=replace(config.quant, weight_bits=tuned_at))
        tuning = args.out / f"{args.subject}_w{tuned_at}a{bits[1]}_{args.start}_tuning"
        baselines = {name: tuned(like, name, subject, tuning) for name in optimizers}
        compared = comparison(config, subject, args.methods, baselines, out.name)
        for count in range(1, len(args.seeds) + 1):
            with make_watcher() as watcher:
                result = run_compare(replace(compared, seeds=tuple(args.seeds[:count])), out, watcher)
            print(table(result), flush=True)
    except Preempted as stopped:
        raise SystemExit(f"{stopped} (or the study's own command)") from stopped


if __name__ == "__main__":
    run_or_refuse(main)
