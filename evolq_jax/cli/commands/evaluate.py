"""`evolq evaluate`."""

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import check_nothing_set, experiment, is_directory
from evolq_jax.cli.tables import print_result
from evolq_jax.verbs.evaluate import run_evaluate


def run(call: Call) -> None:
    """Scores a run, or a config's float network and init."""
    target = call.options.config
    if is_directory(target):
        check_nothing_set(call)
    else:
        target = experiment(call)
    with call.make_watcher() as watcher:
        result = run_evaluate(target, watcher)
    print_result(call.console, result)


COMMAND = Command(
    does="score a run, or the float network and the init of a config, on held-out images",
    run=run,
    takes="a run directory or a config file",
)
