"""`evolq baseline`."""

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.configs import new_or_resumed
from evolq_jax.cli.tables import duration, print_result
from evolq_jax.verbs.baseline import resume_baseline, run_baseline


def run(call: Call) -> None:
    """Descends, or goes on."""
    result = new_or_resumed(call, run_baseline, resume_baseline)
    print_result(call.console, result)
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
