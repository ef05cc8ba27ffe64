"""`evolq search`."""

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import experiment, new_or_resumed
from evolq_jax.cli.tables import duration, plan_table, print_result
from evolq_jax.verbs.search.plan import plan_search
from evolq_jax.verbs.search.run import resume_search, run_search


def run(call: Call) -> None:
    """Searches, or goes on, or shows the plan."""
    if call.options.dry_run and not call.options.resume:
        config = experiment(call)
        call.console.print(plan_table(f"plan of {config.name}", plan_search(config)))
        return
    result = new_or_resumed(call, run_search, resume_search)
    print_result(call.console, result)
    call.console.print(
        f"{result.evaluations} evaluations in {duration(result.seconds_search)}, "
        f"all in {duration(result.seconds)}; everything is in {result.run_dir}"
    )


COMMAND = Command(
    does="calibrate, search, and compare float, init and final on held-out images",
    run=run,
    writes=True,
    continues=True,
    resumes=True,
    plans=True,
)
