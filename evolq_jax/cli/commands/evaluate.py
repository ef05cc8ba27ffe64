"""`evolq evaluate`."""

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import experiment, is_directory, of_run
from evolq_jax.cli.tables import print_result
from evolq_jax.verbs.evaluate import run_evaluate


def run(call: Call) -> None:
    """Scores a run, also on other images, or a config's float network and init."""
    target, data = call.options.config, None
    if is_directory(target):
        data = of_run(call, "data").data if call.overrides or call.options.preset != "default" else None
    else:
        target = experiment(call)
    with call.make_watcher() as watcher:
        result = run_evaluate(target, watcher, data=data)
    print_result(call.console, result)


COMMAND = Command(
    does="score a run, or the float network and the init of a config, on held-out images",
    run=run,
    takes="a run directory or a config file",
)
