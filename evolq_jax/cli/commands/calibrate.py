"""`evolq calibrate`."""

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import experiment
from evolq_jax.cli.tables import fact_table
from evolq_jax.verbs.calibrate import run_calibrate


def run(call: Call) -> None:
    """Calibrates."""
    config = experiment(call)
    with call.make_watcher() as watcher:
        result = run_calibrate(config, call.options.run_dir, watcher)
    facts = {
        "model": result.setting.model,
        "scheme": result.setting.scheme,
        "sites": result.sites,
        "scales": result.scales,
        "num_calibration_images": result.num_calibration_images,
        "seconds": result.seconds,
        "run_dir": result.run_dir,
    }
    call.console.print(fact_table(f"calibrated {config.name}", facts))


COMMAND = Command(does="find the first scales, without a search", run=run, writes=True)
