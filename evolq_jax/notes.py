"""Lines that tell a user what happens to the data. Each is said once in a process."""

import logging
from functools import cache

from evolq_jax.devices import hosts
from evolq_jax.paths import printable

_log = logging.getLogger(__name__)


@cache
def say_once(line: str) -> None:
    """Logs a line as a warning, unless it was said before. Of several processes only the first says it."""
    if hosts.is_first():
        _log.warning("%s", printable(line))
