"""Runs `on_eight.py` with eight virtual devices, whose number is fixed when JAX starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compiling import QUICKLY

HERE = Path(__file__).parent


@pytest.mark.slow
def test_on_eight_virtual_devices() -> None:
    flags = f"{QUICKLY} --xla_force_host_platform_device_count=8"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        str(HERE / "on_eight.py"),
    ]
    done = subprocess.run(
        command,
        cwd=HERE.parent.parent,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
