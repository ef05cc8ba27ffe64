"""A command of evolq in a fresh process, and when it reached what. `compilations` and `first_run` use it.

Seconds count from the start of the process, so the interpreter and all imports are in them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from evolq_jax.devices.xla_flags import compile_quickly

ROOT = Path(__file__).resolve().parent.parent
COMPILED = "/jax/core/compile/backend_compile_duration"  # what was read from the disk, too
TRACED = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
READ = "/jax/compilation_cache/cache_hits"


@dataclass
class Watched:
    """What happened, in seconds since the process began.

    Attributes:
      programs: name and seconds of each program, compiled or read from the disk.
      read: how many of them were read.
      tracing: seconds that Python took to trace and lower them.
      first_program: when the first program was there that works on images; None: there was none.
      first_generation: when the first generation, step or chunk was over; None: the verb has none.
      total: when the process was done.
    """

    programs: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    read: int = 0
    tracing: float = 0.0
    first_program: float | None = None
    first_generation: float | None = None
    total: float = 0.0


def watch(args: Sequence[str], compile_cache: str | Path) -> Watched:
    """Runs `evolq ARGS` from the repository's root.

    Args:
      args: the verb and what follows. It writes to a directory of its own, which is removed.
      compile_cache: the folder of compiled programs, or `off`.
    """
    variables = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    variables |= {"EVOLQ_COMPILE_CACHE": str(compile_cache), "PYTHONPATH": str(ROOT)}
    compile_quickly(variables)  # as the program does for itself
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "watched.json"
        own = ["--run-dir", f"{folder}/run"]
        began = repr(time.time())
        command = [sys.executable, "-m", "benchmarks.watched", str(out), began, *args, *own]
        done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"evolq {' '.join(args)}: {done.stderr[-2000:]}")
        return Watched(**json.loads(out.read_text()))


def _child(out: Path, began: float, args: Sequence[str]) -> None:
    import jax.monitoring

    found, computing = Watched(), Event()

    def now() -> float:
        return time.time() - began

    def program(event: str, duration_secs: float, **about: Any) -> None:
        if event == COMPILED:
            found.programs.append((str(about.get("fun_name")), duration_secs))
            if computing.is_set() and found.first_program is None:
                found.first_program = now()
        elif event in TRACED:
            found.tracing += duration_secs

    def read(event: str, **about: Any) -> None:
        del about
        found.read += event == READ

    jax.monitoring.register_event_duration_secs_listener(program)
    jax.monitoring.register_event_listener(read)
    from evolq_jax.cli import main as cli
    from evolq_jax.cli.progress import LineWatcher

    class Watcher(LineWatcher):
        """Writes down when the first computation and the first generation were there."""

        def stage(self, name: str) -> Any:
            if not name.startswith("decoding"):
                computing.set()
            progress = super().stage(name)

            def told(done: int, total: int) -> None:
                if name == "landscape" and found.first_generation is None:
                    found.first_generation = now()
                progress(done, total)

            return told

        def standing(self, standing: Any) -> None:
            if found.first_generation is None:
                found.first_generation = now()
            super().standing(standing)

    watcher = Watcher(sys.stderr)
    cli.make_watcher = lambda: watcher  # type: ignore[assignment]
    cli.run(args)
    found.total = now()
    out.write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    _child(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
