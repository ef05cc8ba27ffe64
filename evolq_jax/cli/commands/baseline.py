"""`evolq baseline`."""

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import check_resume, experiment
from evolq_jax.cli.tables import duration, result_table
from evolq_jax.verbs.baseline import resume_baseline, run_baseline


def run(call: Call) -> None:
    """Descends, or goes on."""
    if call.options.resume:
        check_resume(call)
        with call.make_watcher() as watcher:
            result = resume_baseline(call.options.config, watcher)
    else:
        config = experiment(call)
        with call.make_watcher() as watcher:
            result = run_baseline(config, call.options.run_dir, watcher)
    call.console.print(result_table(result))
    spent = f"{result.budget_spent:,.0f} candidate-images of {result.budget:,}"
    call.console.print(
        f"{result.steps} steps of {result.optimizer}, {spent} in "
        f"{duration(result.seconds_search)}; everything is in {result.run_dir}"
    )


COMMAND = Command(
    does="the same as search, but with gradient descent in place of the search",
    run=run,
    writes=True,
    continues=True,
    resumes=True,
)
