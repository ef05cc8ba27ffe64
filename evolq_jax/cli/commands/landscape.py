"""`evolq landscape`."""

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import experiment, is_directory, of_run
from evolq_jax.cli.tables import duration, jaggedness_table, plan_table
from evolq_jax.runs.directory import INDEX
from evolq_jax.verbs.landscape.plan import plan_landscape
from evolq_jax.verbs.landscape.run import run_landscape


def run(call: Call) -> None:
    """Scans, or shows the plan."""
    target, settings = call.options.config, None
    if is_directory(target):
        settings = of_run(call, "landscape").landscape
    else:
        target = experiment(call)
    if call.options.dry_run:
        call.console.print(plan_table("plan of a landscape", plan_landscape(target, settings)))
        return
    with call.make_watcher() as watcher:
        result = run_landscape(target, settings, call.options.run_dir, watcher)
    call.console.print(jaggedness_table(result))
    if result.left_out:
        call.console.print(f"left out, since the images have no labels: {', '.join(result.left_out)}")
    if result.reflected_share:
        call.console.print(
            f"up to {100 * result.reflected_share:.1f} % of the moved scales were reflected at zero; "
            "a smaller --landscape.epsilon keeps them positive"
        )
    where = f"; {INDEX} there shows the pictures" if result.landscape.plots else ""
    call.console.print(f"all in {duration(result.seconds)}; everything is in {result.run_dir}{where}")


COMMAND = Command(
    does="scan how the loss changes around an init or a result: lines, planes, layers",
    run=run,
    takes="a run directory or a config file",
    writes=True,
    continues=True,
    plans=True,
)
