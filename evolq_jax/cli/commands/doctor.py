"""`evolq doctor`."""

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.tables import fact_table, facts_of
from evolq_jax.verbs.doctor import diagnose


def run(call: Call) -> None:
    """Looks, and shows it."""
    call.console.print(fact_table("this machine", facts_of(diagnose())))


COMMAND = Command(does="show versions, devices and caches of this machine", run=run, config=None)
