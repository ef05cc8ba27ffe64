"""Times that can be compared on a shared machine: tasks are measured in turn, and medians are taken."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.monitoring

Task = Callable[[], float]  # runs something and returns its seconds

COMPILATION = "/jax/core/compile/backend_compile_duration"


def timed(run: Callable[[], Any]) -> Task:
    """A task of `run`, which gives arrays; compiles it now."""
    jax.block_until_ready(run())

    def task() -> float:
        began = time.perf_counter()
        jax.block_until_ready(run())
        return time.perf_counter() - began

    return task


def interleave(tasks: Mapping[Any, Task], repeats: int) -> dict[Any, list[float]]:
    """Seconds of every task in each of `repeats` rounds over all of them."""
    rounds = [{name: task() for name, task in tasks.items()} for _ in range(repeats)]
    return {name: [seconds[name] for seconds in rounds] for name in tasks}


@dataclass
class Compilations:
    """What XLA compiled."""

    seconds: list[float] = field(default_factory=list[float])
    names: list[str] = field(default_factory=list[str])


@contextmanager
def count_compilations() -> Generator[Compilations]:
    """Counts XLA's compilations, one by one, while it is open."""
    found = Compilations()

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILATION:
            found.seconds.append(duration_secs)
            found.names.append(str(kwargs.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
