"""`evolq search`."""

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import check_resume, experiment
from evolq_jax.cli.tables import duration, plan_table, result_table
from evolq_jax.verbs.search.plan import plan_search
from evolq_jax.verbs.search.run import resume_search, run_search


def run(call: Call) -> None:
    """Searches, or goes on, or shows the plan."""
    if call.options.resume:
        check_resume(call)
        with call.make_watcher() as watcher:
            result = resume_search(call.options.config, watcher)
    else:
        config = experiment(call)
        if call.options.dry_run:
            call.console.print(plan_table(f"plan of {config.name}", plan_search(config)))
            return
        with call.make_watcher() as watcher:
            result = run_search(config, call.options.run_dir, watcher)
    call.console.print(result_table(result))
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
