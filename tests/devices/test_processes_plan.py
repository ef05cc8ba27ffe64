import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = "--model vit_digits --compiled 4 --images 100 --chunk 10 --chips 4"


@pytest.mark.slow
@pytest.mark.parametrize("population", ["1", "2"])
def test_the_formulas_are_those_of_the_compiled_program(population: str) -> None:
    command = [sys.executable, "benchmarks/plan_chips.py", *OPTIONS.split(), "--population", population]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.returncode == 0, ran.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ran.stdout.splitlines()]
    found = {row[0]: row[1:] for row in rows if len(row) == 3}
    for name in ("GFLOP of a generation, first block", "GFLOP of a generation, last block but one"):
        assert found[name][0] == found[name][1] != "0.00"
    received, held = found["MiB received in a generation"], found["MiB held"]
    assert float(received[0]) == pytest.approx(float(received[1]), abs=0.01)
    assert float(held[0]) == pytest.approx(float(held[1]), rel=0.05)
    assert len([row for row in rows if row and row[0] == "4"]) == 1
