"""A run whose process is killed again and again, against the same one left in peace."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from evolq_jax.config.experiment import Experiment
from evolq_jax.runs.config_json import to_json
from tests.compiling import cache_variables

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """\
import sys
from pathlib import Path
from evolq_jax.runs.config_json import from_json
from evolq_jax.verbs.baseline import ensure_baseline
from evolq_jax.verbs.search.run import ensure_search
run = {"search": ensure_search, "baseline": ensure_baseline}[sys.argv[3]]
run(from_json(Path(sys.argv[1]).read_text(), sys.argv[1]), sys.argv[2])
"""


class Kills(NamedTuple):
    """What happened to a run, by the moments of its kills."""

    at_start: int  # imports, decoding, calibration
    in_search: int  # or in the descent
    in_save: int  # a checkpoint was left half written
    seconds: float


class Killed:
    """A search or baseline in processes of their own; compiled programs come from a cache in `folder`."""

    def __init__(self, config: Experiment, folder: Path, name: str, verb: str = "search") -> None:
        self.run_dir, self._verb = folder / name, verb
        self._config = folder / f"{name}.json"
        self._config.write_text(to_json(config))
        self._environment = os.environ | {"PYTHONPATH": str(ROOT)} | cache_variables(folder / "compiled")

    def start(self) -> "subprocess.Popen[bytes]":
        """One attempt."""
        command = [sys.executable, "-c", PROGRAM, str(self._config), str(self.run_dir), self._verb]
        return subprocess.Popen(command, cwd=ROOT, env=self._environment)

    def finish(self) -> None:
        """An attempt left in peace."""
        with self.start() as process:
            assert process.wait(timeout=300) == 0

    def kill_many(self, count: int, seed: int = 0) -> Kills:
        """Kills attempts at random moments: a fifth at the start, two in the search, two during a save."""
        rng, began = random.Random(seed), time.monotonic()
        kinds = [0, 0, 0]
        for number in range(count):
            with self.start() as process:
                try:
                    if number % 5 == 0:
                        time.sleep(rng.uniform(0.0, 2.0))
                    else:
                        saved = self._saved()
                        _wait(process, lambda saved=saved: self._saved() > saved)
                        time.sleep(rng.uniform(0.0, 0.2))
                        if number % 2:
                            _wait(process, lambda: bool(self._half_written()))
                finally:
                    process.send_signal(signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL, "it came to its end before it was killed"
            in_search = number % 5 > 0
            kinds[in_search + (in_search and bool(self._half_written()))] += 1
        return Kills(*kinds, seconds=time.monotonic() - began)

    def outcome(self) -> dict[str, Any]:
        """All that must not depend on kills: every file, but for times."""
        files = {file.name: file.read_bytes() for file in self.run_dir.iterdir()}
        result, log = json.loads(files.pop("result.json")), files.pop("log.jsonl").decode().splitlines()
        lines = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in log]
        result = {k: v for k, v in result.items() if not k.startswith("seconds")}
        return {"files": files, "log": lines, "result": result}

    def _saved(self) -> int:
        """The last whole checkpoint's visit."""
        names = [path.name for path in self._checkpoints()]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def _half_written(self) -> list[str]:
        return [path.name for path in self._checkpoints() if not path.name.isdigit()]

    def _checkpoints(self) -> list[Path]:
        return [*(self.run_dir / "checkpoints").glob("*")]


def _wait(process: "subprocess.Popen[bytes]", happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, "it came to its end before it was killed"
        assert time.monotonic() < end, "nothing was saved in two minutes"
        time.sleep(0.0005)
