"""Several processes as one program (`jax.distributed`): how they join, agree and end together.

Every process runs the same code with the same arguments. The first one owns the run's directory and talks to
the user. With one process, nothing here does anything.
"""

import argparse
import json
import os
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from jax._src import distributed  # JAX has its key-value store and its list of clusters in private only
from jax._src.clusters import ClusterEnv
from jax.experimental import multihost_utils

from evolq_jax import interrupt
from evolq_jax.errors import UserError

HEARTBEAT_SECONDS = 60  # without a sign of life for so long, a process counts as dead (JAX's default is 100)
LOST = 75  # status where another process is gone: EX_TEMPFAIL, try again
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 2.0  # for a process to end by an error of its own, before the others' ends it
_STOP = "evolq/stop"
SEVERAL = ("search", "calibrate", "evaluate")  # verbs that several processes run together


class Place(NamedTuple):
    """One process among several, as the command line names it."""

    coordinator: str  # HOST:PORT of the first process
    num_processes: int
    process_id: int


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """The options that make a `Place`."""
    several = "for several processes (docs/scaling.md): "
    parser.add_argument("--coordinator", metavar="HOST:PORT", help=several + "address of the first one")
    parser.add_argument("--num-processes", type=int, metavar="N", help=several + "their number")
    parser.add_argument("--process-id", type=int, metavar="I", help=several + "number of this one, from 0")


def connect_for(args: Sequence[str]) -> None:
    """Calls `connect` with the options of a command line, before the whole line is parsed.

    Raises:
      UserError: as `check_place` and `connect`.
    """
    if not args or args[0] not in SEVERAL or {"-h", "--help"} & set(args):
        return
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_place_options(parser)
    try:
        options, _ = parser.parse_known_args(args[1:])
    except argparse.ArgumentError:
        return  # said by the whole command line's parser
    connect(check_place(options.coordinator, options.num_processes, options.process_id))


def check_place(coordinator: str | None, num_processes: int | None, process_id: int | None) -> Place | None:
    """The three options as a `Place`; None if none is given.

    Raises:
      UserError: some are missing, or they make no sense.
    """
    given = {"--coordinator": coordinator, "--num-processes": num_processes, "--process-id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if coordinator is None or num_processes is None or process_id is None:
        if len(missing) == len(given):
            return None
        raise UserError(f"{', '.join(given)} belong together: {' and '.join(missing)} missing")
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}", coordinator):
        raise UserError(f"--coordinator '{coordinator}' is no HOST:PORT, the address of the first process")
    if num_processes < 1:
        raise UserError(f"--num-processes must be at least 1, not {num_processes}")
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process-id must be from 0 to {num_processes - 1}, not {process_id}")
    return Place(coordinator, num_processes, process_id)


def connect(place: Place | None = None, timeout_seconds: int = 300) -> None:
    """Joins the other processes, if there are any. Call it before anything else asks JAX for devices.

    Args:
      place: the user's options. None: read `JAX_COORDINATOR_ADDRESS` or the cluster's environment (TPU pods,
        Slurm, Open MPI, indexed Kubernetes jobs). Without either, nothing happens.
      timeout_seconds: how long to wait for the other processes.

    Raises:
      UserError: the other processes cannot be reached.
    """
    if place is None and not _in_cluster():
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # concerns CPUs only
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours (runs/preemption.py)
    arguments: dict[str, Any] = {}
    if place:
        address, count, number = place
        arguments = {"coordinator_address": address, "num_processes": count, "process_id": number}
        arguments["cluster_detection_method"] = "deactivate"
    # When the time is up, JAX ends the process by itself, and says little.
    where = f" at {place.coordinator}" if place else ""
    waiting = threading.Timer(min(10, timeout_seconds / 2), _say, [f"evolq: waiting for others{where}"])
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=timeout_seconds,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot join the other processes{where}: {' '.join(str(error).split())}") from error
    finally:
        waiting.cancel()
    threading.Thread(target=_watch, daemon=True).start()
    interrupt.tell_others(lambda line: leave(line, interrupt.STATUS))


def _in_cluster() -> bool:
    """Whether the environment says that this is one of several processes, without asking anybody else."""
    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Kubernetes without its package: no concern of a single process
        for environment in ClusterEnv._cluster_types:  # pyright: ignore[reportPrivateUsage]
            indexed = "k8s" not in environment.__module__ or "JOB_COMPLETION_INDEX" in os.environ
            if not environment.opt_in_only_method and indexed and environment.is_env_present():
                return environment.get_process_count() > 1
    return False


def num_processes() -> int:
    """The number of processes that run this program."""
    return distributed.global_state.num_processes if jax.distributed.is_initialized() else 1


def process_id() -> int:
    """The number of this process, from 0."""
    return distributed.global_state.process_id if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes and talks."""
    return process_id() == 0


def share(count: int) -> slice:
    """This process's share of `count` rows. Shares differ by one row at most."""
    edges = [count * i // num_processes() for i in range(num_processes() + 1)]
    return slice(edges[process_id()], edges[process_id() + 1])


def from_first(make: Callable[[], bytes]) -> bytes:
    """The result of `make`, which only the first process calls. All processes must come here together."""
    return make() if num_processes() == 1 else bytes(from_process(0, make))


def from_process(source: int, make: Callable[[], bytes | memoryview]) -> bytes | memoryview:
    """The result of `make`, which only process `source` calls. All processes must come here together."""
    if num_processes() == 1:
        return make()
    mine = process_id() == source
    content = np.frombuffer(make(), np.uint8) if mine else np.zeros(0, np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content)), is_source=mine))
    padded = np.zeros(1 << max(size - 1, 0).bit_length(), np.uint8)  # few sizes, so few programs
    padded[: len(content)] = content
    return np.asarray(multihost_utils.broadcast_one_to_all(padded, is_source=mine))[:size].tobytes()


def gather(rows: np.ndarray) -> np.ndarray:
    """The rows [b, ...] of all processes, one after the other: [B, ...]."""
    if num_processes() == 1:
        return rows
    counts = np.asarray(multihost_utils.process_allgather(np.int32(len(rows)))).reshape(-1)
    padded = np.zeros((counts.max(), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    together = np.asarray(multihost_utils.process_allgather(padded))
    return np.concatenate([part[:count] for part, count in zip(together, counts, strict=True)])


def anywhere(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return flag if num_processes() == 1 else bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def leave(line: str, status: int) -> NoReturn:
    """Ends all processes after an error, with this status and with one line in total.

    The process that calls this first prints its line. With one process this is an ordinary exit.
    """
    if num_processes() == 1:
        _say(line)
        sys.exit(status)
    try:
        _store().key_value_set(_STOP, json.dumps([status, line]))
        _say(line)
    except Exception:  # another was faster, or the first process is gone
        status, _ = _asked_to_stop() or (status, line)
    _quit(status)


def leave_together(line: str, status: int) -> NoReturn:
    """Ends the program if all processes have agreed to end. The first one prints the line and ends last."""
    if is_first():
        _say(line)
    sys.exit(status)  # JAX waits for all of them


def leave_after(error: Exception) -> NoReturn:
    """Ends the program after an unexpected error. In a cluster that is mostly a lost connection."""
    time.sleep(_POLL_SECONDS)  # for the note of a process that has ended by itself
    asked = _asked_to_stop()
    if asked:
        _quit(asked[0])
    text = " ".join(str(error).split())
    if isinstance(error, jax.errors.JaxRuntimeError | ValueError) and _is_connection(text):
        leave(
            "evolq: another process of this run has died or cannot be reached "
            f"({text[:200]}); start all of them again: a search goes on where it was saved",
            LOST,
        )
    traceback.print_exception(error)
    leave(f"evolq: process {process_id()} of {num_processes()} has failed", 1)


def _is_connection(text: str) -> bool:
    marks = ("Gloo", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "NCCL", "heartbeat", "Connection")
    return any(mark in text for mark in marks)


def _watch() -> None:
    """Ends this process when another has ended by an error, in whatever collective operation it may wait."""
    while True:
        time.sleep(_POLL_SECONDS)
        if not jax.distributed.is_initialized():
            return
        asked = _asked_to_stop()
        if asked is not None:
            time.sleep(_GRACE_SECONDS / 2)
            status, line = asked
            if status != 2:  # what the user can mend is said once
                _say(line)
            _quit(status)


def _asked_to_stop() -> tuple[int, str] | None:
    try:
        status, line = json.loads(_store().key_value_try_get(_STOP))
    except Exception:  # nobody has asked, or the first process is gone, which JAX finds out by itself
        return None
    return int(status), str(line)


def _store() -> Any:
    """The key-value store that the first process keeps for all."""
    return distributed.global_state.client


def _quit(status: int) -> NoReturn:
    """At once: JAX's own end would wait for processes that hang."""
    if is_first():
        time.sleep(_GRACE_SECONDS)  # what the others ask is answered here
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
