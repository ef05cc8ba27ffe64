import os
import subprocess
import sys
from pathlib import Path

import pytest

from evolq_jax.devices import xla_flags
from evolq_jax.devices.xla_flags import TRITON_PRODUCTS, compile_quickly


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xla_flags, "CUDA_PLUGINS", ("json",))  # some module that is there


@pytest.mark.usefixtures("with_cuda")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, f"{TRITON_PRODUCTS}=false"),
        ({"XLA_FLAGS": "--xla_a=1"}, f"--xla_a=1 {TRITON_PRODUCTS}=false"),
        ({"XLA_FLAGS": f"{TRITON_PRODUCTS}=true"}, f"{TRITON_PRODUCTS}=true"),
    ],
)
def test_trials_are_off_unless_the_user_speaks_of_them(before: dict[str, str], after: str) -> None:
    compile_quickly(before)
    assert before == {"XLA_FLAGS": after}


def test_without_nvidia_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xla_flags, "CUDA_PLUGINS", ("no_such_module",))
    environment: dict[str, str] = {}
    compile_quickly(environment)
    assert environment == {}


def test_the_program_says_it_before_jax_starts(tmp_path: Path) -> None:
    """XLA ends a process with a flag that it does not know, so this also shows that it knows this one."""
    (tmp_path / "jax_cuda13_plugin.py").write_text("")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    variables = {**os.environ, "PYTHONPATH": path, "XLA_FLAGS": "", "COLUMNS": "200"}
    command = [sys.executable, "-m", "evolq_jax", "doctor"]
    shown = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
    assert f"{TRITON_PRODUCTS}=false" in shown
