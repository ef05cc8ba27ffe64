"""`evolq landscape`."""

from evolq_jax.cli.arguments import OPTIONS
from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import experiment, is_directory
from evolq_jax.cli.override import override
from evolq_jax.cli.tables import duration, jaggedness_table, plan_table
from evolq_jax.config.experiment import LandscapeConfig
from evolq_jax.errors import UserError
from evolq_jax.runs.directory import INDEX, open_run
from evolq_jax.verbs.landscape.plan import plan_landscape
from evolq_jax.verbs.landscape.run import run_landscape


def run(call: Call) -> None:
    """Scans, or shows the plan."""
    target, settings = call.options.config, None
    if is_directory(target):
        settings = _settings_of_run(call)
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


def _settings_of_run(call: Call) -> LandscapeConfig:
    """The scan's settings. A run keeps the rest of its config."""
    overrides = call.overrides
    others = [arg for arg in overrides if arg.startswith("--") and not arg.startswith("--landscape.")]
    if others or call.options.preset != "default":
        raise UserError(
            f"a run keeps its config, so '{(others or ['--preset'])[0]}' cannot be set on one; "
            "--landscape fields can"
        )
    return override(open_run(call.options.config).config(), overrides, call.verb, OPTIONS).landscape


COMMAND = Command(
    does="scan how the loss changes around an init or a result: lines, planes, layers",
    run=run,
    takes="a run directory or a config file",
    writes=True,
    continues=True,
    plans=True,
)
