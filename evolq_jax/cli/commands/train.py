"""`evolq train`."""

import shlex

from evolq_jax.cli.arguments import OPTIONS
from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import config_file
from evolq_jax.cli.override import override
from evolq_jax.config.load import load_config
from evolq_jax.verbs.train import TrainExperiment, run_training


def run(call: Call) -> None:
    """Trains."""
    config = load_config(config_file(call), TrainExperiment)
    config = override(config, call.overrides, call.verb, OPTIONS)
    command = shlex.join(["evolq", "train", call.options.config, *call.overrides])
    with call.make_watcher() as watcher:
        trained = run_training(config, watcher.stage("training"), command)
    call.console.print(f"top-1 {100 * trained.top1:.1f} % on {trained.num_test} images; wrote {trained.path}")


COMMAND = Command(
    does="train a small float network with a training config",
    run=run,
    config=TrainExperiment,
    example="configs/train_digits.py",
    field="--train.epochs 3",
    has_presets=False,
)
