import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evolq_jax.devices import hosts
from evolq_jax.devices.hosts import Place, check_place
from evolq_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
ALL = "--coordinator, --num-processes, --process-id belong together"


def test_a_place() -> None:
    assert check_place(None, None, None) is None
    assert check_place("node1:1234", 2, 1) == Place("node1:1234", 2, 1)
    assert check_place("[::1]:1234", 1, 0) == Place("[::1]:1234", 1, 0)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("node1:1234", None, None), f"{ALL}: --num-processes and --process-id missing"),
        ((None, 2, 0), f"{ALL}: --coordinator missing"),
        (("node1", 2, 0), "--coordinator 'node1' is no HOST:PORT, the address of the first process"),
        (("node1:1234", 0, 0), "--num-processes must be at least 1, not 0"),
        (("node1:1234", 2, 2), "--process-id must be from 0 to 1, not 2"),
        (("node1:1234", 2, -1), "--process-id must be from 0 to 1, not -1"),
    ],
)
def test_no_place(given: tuple[str | None, int | None, int | None], line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line) + "$"):
        check_place(*given)


def test_shares_are_even_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, processes in [(10, 4), (3, 4), (8, 2), (0, 3)]:
        monkeypatch.setattr(hosts, "num_processes", lambda processes=processes: processes)
        rows: list[int] = []
        sizes: list[int] = []
        for number in range(processes):
            monkeypatch.setattr(hosts, "process_id", lambda number=number: number)
            mine = range(count)[hosts.share(count)]
            rows += mine
            sizes.append(len(mine))
        assert rows == [*range(count)]
        assert max(sizes) - min(sizes) <= 1


def test_one_process_is_alone() -> None:
    rows = np.arange(3)
    assert hosts.gather(rows) is rows
    assert hosts.from_first(lambda: b"x") == b"x"
    assert (hosts.num_processes(), hosts.process_id(), hosts.is_first()) == (1, 0, True)


CLUSTERS = {
    "nothing": ({}, False),
    "address": ({"JAX_COORDINATOR_ADDRESS": "node1:1234"}, True),
    "slurm": ({"SLURM_NTASKS": "4"}, True),
    "one task of slurm": ({"SLURM_NTASKS": "1"}, False),
    "kubernetes without a job": ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
}
SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_STEP_NODELIST": "node[1-4]",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`filterwarnings = error` of the tests also holds: nothing is said where there is no cluster."""
    environment, several = CLUSTERS[name]
    for variable in os.environ:
        if variable.startswith(("SLURM", "OMPI", "KUBERNETES", "JAX_COORDINATOR", "JOB_COMPLETION")):
            monkeypatch.delenv(variable)
    for variable, value in (environment | (SLURM if "slurm" in name else {})).items():
        monkeypatch.setenv(variable, value)
    connected: list[dict[str, object]] = []
    monkeypatch.setattr("jax.distributed.initialize", lambda **given: connected.append(given))
    monkeypatch.setattr("jax.config.update", lambda *given: None)
    monkeypatch.setattr("threading.Thread.start", lambda thread: None)
    hosts.connect_for(["search", "config.py"])
    assert bool(connected) == several
    hosts.connect_for(["models"])
    assert len(connected) == several


def test_an_address_where_nobody_is() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    program = (
        "from evolq_jax.devices import hosts; "
        "hosts.connect(hosts.Place('localhost:{}', 2, 1), timeout_seconds=2)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program.format(port)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode != 0
    assert f"evolq: waiting for others at localhost:{port}\n" in ran.stderr
