"""The command line: `evolq VERB CONFIG [--field.name value ...]`."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evolq_jax.cli.arguments import OPTIONS, VERBS, check_order, make_parser
from evolq_jax.cli.override import override, print_fields, print_names
from evolq_jax.cli.progress import make_watcher
from evolq_jax.cli.tables import (
    comparison_table,
    duration,
    fact_table,
    facts_of,
    jaggedness_table,
    plan_table,
    result_table,
    row_table,
)
from evolq_jax.config.comparison import Comparison, join
from evolq_jax.config.experiment import Experiment, LandscapeConfig
from evolq_jax.config.load import load_config
from evolq_jax.config.presets import with_preset
from evolq_jax.devices import hosts
from evolq_jax.errors import UserError, suggestion
from evolq_jax.pipeline.load import list_models
from evolq_jax.runs.directory import CONFIG, open_run
from evolq_jax.runs.preemption import STATUS, Preempted
from evolq_jax.verbs.baseline import resume_baseline, run_baseline
from evolq_jax.verbs.calibrate import run_calibrate
from evolq_jax.verbs.compare.plan import plan_compare
from evolq_jax.verbs.compare.run import run_compare
from evolq_jax.verbs.evaluate import run_evaluate
from evolq_jax.verbs.landscape.plan import plan_landscape
from evolq_jax.verbs.landscape.run import run_landscape
from evolq_jax.verbs.pack import run_pack
from evolq_jax.verbs.search.plan import plan_search
from evolq_jax.verbs.search.run import resume_search, run_search
from evolq_jax.verbs.train import TrainExperiment, run_training

COMPARED = ("budget", "milestones", "reference")  # fields of a comparison that options set


def main() -> None:
    """The entry point. A user's error is one line and status 2. A run that SIGTERM stops has status 75."""
    try:
        try:
            run(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to fail on at exit
        sys.exit(1)
    except UserError as error:
        hosts.leave(f"evolq: error: {' '.join(str(error).split())}", 2)
    except KeyboardInterrupt:
        hosts.leave("evolq: interrupted", 130)
    except Preempted as stopped:
        hosts.leave_together(f"evolq: {stopped}", STATUS)
    except Exception as error:
        if hosts.num_processes() == 1:
            raise
        hosts.leave_after(error)


def run(args: Sequence[str]) -> None:
    """Runs one command.

    Raises:
      UserError: the user can mend the error.
    """
    verb = args[0] if args else ""
    if not verb.startswith("-") and verb not in VERBS:
        wrong = f"unknown verb '{verb}'{suggestion(verb, VERBS)}" if verb else "name what to do"
        raise UserError(f"{wrong} (one of {', '.join(VERBS)}; `evolq --help` has examples)")
    options, overrides = make_parser().parse_known_args(args)
    check_order(args, options, overrides)
    _check_connected(options)
    console = Console(markup=False, highlight=False, quiet=not hosts.is_first())
    if options.help:
        _print_help(options)
    elif options.verb == "models":
        console.print(_models_table())
    elif options.verb == "pack":
        _pack(console, options, overrides)
    elif options.verb == "train":
        _train(console, options, overrides)
    elif options.verb == "evaluate":
        _evaluate(console, options, overrides)
    elif options.verb == "compare":
        _compare(console, options, overrides)
    elif options.verb == "baseline":
        _baseline(console, options, overrides)
    elif options.verb == "landscape":
        _landscape(console, options, overrides)
    elif options.verb == "calibrate":
        _calibrate(console, options, overrides)
    else:
        _search(console, options, overrides)


def _check_connected(options: argparse.Namespace) -> None:
    """Checks that `__main__` has connected the processes. After this module's imports it is too late."""
    place = hosts.check_place(options.coordinator, options.num_processes, options.process_id)
    if place is not None and place.num_processes != hosts.num_processes():
        raise UserError(
            "several processes are started as `evolq` or `python -m evolq_jax`, not through cli.main"
        )


def _pack(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    if overrides:
        raise UserError(f"`evolq pack` takes no argument '{overrides[0]}'")
    with make_watcher() as watcher:
        packed = run_pack(options.folder, options.out, options.class_index, watcher)
    console.print(fact_table("packed", facts_of(packed)))


def _search(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    if options.resume:
        _check_resume(options, overrides)
        with make_watcher() as watcher:
            result = resume_search(options.config, watcher)
    else:
        config = _experiment(options, overrides)
        if options.dry_run:
            console.print(plan_table(f"plan of {config.name}", plan_search(config)))
            return
        with make_watcher() as watcher:
            result = run_search(config, options.run_dir, watcher)
    console.print(result_table(result))
    console.print(
        f"{result.evaluations} evaluations in {duration(result.seconds_search)}, "
        f"all in {duration(result.seconds)}; everything is in {result.run_dir}"
    )


def _check_resume(options: argparse.Namespace, overrides: list[str]) -> None:
    """Refuses other options: with `--resume` the run's directory decides everything."""
    preset = ["--preset"] if options.preset != "default" else []
    dry_run = ["--dry-run"] * getattr(options, "dry_run", False)
    others = preset + ["--run-dir"] * bool(options.run_dir) + dry_run
    if overrides or others:
        raise UserError(f"a run keeps its config, so '{(overrides + others)[0]}' cannot be set with --resume")
    if options.config is None or not Path(options.config).is_dir():
        raise UserError(
            f"--resume wants a run directory, not '{options.config}': "
            f"write evolq {options.verb} RUN_DIR --resume"
        )


def _calibrate(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    config = _experiment(options, overrides)
    with make_watcher() as watcher:
        result = run_calibrate(config, options.run_dir, watcher)
    setting = {"model": result.setting.model, "scheme": result.setting.scheme}
    facts = {name: value for name, value in facts_of(result).items() if name not in ("setting", "run_dir")}
    console.print(fact_table(f"calibrated {config.name}", setting | facts | {"run_dir": result.run_dir}))


def _evaluate(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    target = options.config
    if target is None or not Path(target).is_dir():
        target = _experiment(options, overrides)
    elif overrides or options.preset != "default":
        raise UserError(f"a run keeps its config, so '{(overrides or ['--preset'])[0]}' cannot be set on one")
    with make_watcher() as watcher:
        result = run_evaluate(target, watcher)
    console.print(result_table(result))


def _baseline(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    if options.resume:
        _check_resume(options, overrides)
        with make_watcher() as watcher:
            result = resume_baseline(options.config, watcher)
    else:
        config = _experiment(options, overrides)
        with make_watcher() as watcher:
            result = run_baseline(config, options.run_dir, watcher)
    console.print(result_table(result))
    spent = f"{result.budget_spent:,.0f} candidate-images of {result.budget:,}"
    console.print(
        f"{result.steps} steps of {result.optimizer}, {spent} in "
        f"{duration(result.seconds_search)}; everything is in {result.run_dir}"
    )


def _compare(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    """Overrides and presets apply to every method, so that all start from the same init."""
    if not options.configs:
        raise UserError(f"`evolq compare` needs {options.what}, as in: evolq compare {options.example}")
    parts = [load_config(path, Experiment, Comparison) for path in options.configs]
    comparison = join(parts)
    methods = tuple(
        replace(method, config=_changed(method.config, options, overrides)) for method in comparison.methods
    )
    given = {name: getattr(options, name) for name in COMPARED if getattr(options, name) is not None}
    seeds = {"seeds": tuple(options.seeds)} if options.seeds else {}
    comparison = replace(comparison, methods=methods, **given, **seeds)
    if options.dry_run:
        plan = plan_compare(comparison, options.run_dir)
        console.print(plan_table(f"plan of {comparison.name}", plan))
        return
    with make_watcher() as watcher:
        result = run_compare(comparison, options.run_dir, watcher)
    console.print(comparison_table(result))
    console.print(f"everything is in {result.run_dir}")


def _landscape(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    target, settings = options.config, None
    if target is None or not Path(target).is_dir():
        target = _experiment(options, overrides)
    else:
        settings = _landscape_of_run(target, options, overrides)
    if options.dry_run:
        console.print(plan_table("plan of a landscape", plan_landscape(target, settings)))
        return
    with make_watcher() as watcher:
        result = run_landscape(target, settings, options.run_dir, watcher)
    console.print(jaggedness_table(result))
    if result.left_out:
        console.print(f"left out, since the images have no labels: {', '.join(result.left_out)}")
    if result.reflected_share:
        console.print(
            f"up to {100 * result.reflected_share:.1f} % of the moved scales were reflected at zero; "
            "a smaller --landscape.epsilon keeps them positive"
        )
    console.print(f"all in {duration(result.seconds)}; everything is in {result.run_dir}")


def _landscape_of_run(target: str, options: argparse.Namespace, overrides: list[str]) -> LandscapeConfig:
    """The scan's settings. A run keeps the rest of its config."""
    others = [arg for arg in overrides if arg.startswith("--") and not arg.startswith("--landscape.")]
    if others or options.preset != "default":
        raise UserError(
            f"a run keeps its config, so '{(others or ['--preset'])[0]}' cannot be set on one; "
            "--landscape fields can"
        )
    config = open_run(target).config()
    return override(config, overrides, options.verb, OPTIONS).landscape


def _train(console: Console, options: argparse.Namespace, overrides: list[str]) -> None:
    config = override(load_config(_config_file(options), TrainExperiment), overrides, options.verb, OPTIONS)
    command = shlex.join(["evolq", "train", options.config, *overrides])
    with make_watcher() as watcher:
        trained = run_training(config, watcher.stage("training"), command)
    console.print(f"top-1 {100 * trained.top1:.1f} % on {trained.num_test} images; wrote {trained.path}")


def _experiment(options: argparse.Namespace, overrides: list[str]) -> Experiment:
    """The config of a command line. Fields on the command line have priority over the preset."""
    return _changed(load_config(_config_file(options)), options, overrides)


def _changed(config: Experiment, options: argparse.Namespace, overrides: list[str]) -> Experiment:
    config = override(config, overrides, options.verb, OPTIONS)
    if options.preset == "default":
        return config
    return override(with_preset(config, options.preset), overrides, options.verb)


def _config_file(options: argparse.Namespace) -> str:
    resumable = options.verb in ("search", "baseline")
    if resumable and Path(options.config or "").joinpath(CONFIG).is_file():
        again = f"evolq {options.verb} {options.config} --resume"
        raise UserError(f"'{options.config}' is a run directory: {again} goes on with it")
    if options.config is None:
        raise UserError(
            f"`evolq {options.verb}` needs {options.what}, as in: evolq {options.verb} {options.example}"
        )
    return options.config


def _print_help(options: argparse.Namespace) -> None:
    """Prints the verb's own options, then every field of its config."""
    kind = TrainExperiment if options.verb == "train" else Experiment
    config = None
    if options.config is not None and not Path(options.config).is_dir():
        config = load_config(options.config, kind)
        config = with_preset(config, options.preset)
    options.parser.print_help()
    field = "--train.epochs 3" if options.verb == "train" else "--search.passes 3"
    print(f"\nEvery field of the config can be set as in {field}:\n", flush=True)
    print_fields(kind, config, options.verb)
    if kind is Experiment:
        print_names()


def _models_table() -> Table:
    headings = ("name", "M params", "image", "patch", "width", "depth", "heads", "weights")
    rows = [
        (
            model["name"],
            round(model["num_params"] / 1e6, 1),
            *(model[size] or "-" for size in ("image_size", "patch_size", "width", "depth", "num_heads")),
            "included" if model["weights_included"] else "",
        )
        for model in list_models()
    ]
    return row_table("models", headings, rows)
