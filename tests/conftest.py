"""Fixtures for all tests, and the settings that must stand before JAX is imported."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.compiling import QUICKLY, cache_variables

if TYPE_CHECKING:
    import numpy as np

    from tests.search.setting import Setting
    from tests.tiny import Tiny

# Read when JAX starts. Tests run on a CPU where nothing else is said, as in `JAX_PLATFORMS=cuda make test`.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# On GPUs JAX would take TF32, which is coarser than the tolerances.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "float32")
# Several test processes share one GPU, so none may take most of its memory at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ.setdefault("XLA_FLAGS", QUICKLY)

# Each of several test processes has cores of its own: XLA's threads get into each other's way.
if hasattr(os, "sched_setaffinity") and "PYTEST_XDIST_WORKER" in os.environ:
    cores = sorted(os.sched_getaffinity(0))
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    os.sched_setaffinity(0, cores[number :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])] or cores)

# Most of the tests' time is compiling, and workers, which inherit the variable, compile much alike.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.mkdtemp(prefix="compiled-programs-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ.update(cache_variables(compiled))

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.hookimpl(tryfirst=True)  # before pytest selects by `-m`
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests that use the data as `shared`, and skips those marked where there is none."""
    absent = pytest.mark.skip(
        reason="the folder ../shared (real weights, images, recorded numbers) is missing"
    )
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(absent)


@pytest.hookimpl(tryfirst=True)  # before fixtures compile
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what assumes a CPU elsewhere; XLA optimizes small networks less: compiling them takes longest."""
    import jax

    of_cpu, backend = item.get_closest_marker("cpu"), jax.default_backend()
    if of_cpu and backend != "cpu":
        pytest.skip(f"assumes a CPU, not a {backend}: {of_cpu.kwargs['reason']}")
    jax.config.update("jax_disable_most_optimizations", item.get_closest_marker("shared") is None)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between two files, so that a process lives through all tests."""
    if nextitem is not None and nextitem.path != item.path:
        from evolq_jax.devices.programs import forget_programs

        forget_programs()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real weights, images and recorded numbers; tests with it are skipped where it is missing."""
    return SHARED


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], dict[str, "np.ndarray"]]:
    """`golden(stem)` reads the recorded numbers of `golden/<stem>.safetensors`."""
    from safetensors.numpy import load_file

    return lambda stem: load_file(shared / "golden" / f"{stem}.safetensors")


@pytest.fixture(scope="session")
def tiny() -> "Tiny":
    """A seeded ViT of three blocks with twelve images."""
    from tests.tiny import make_tiny

    return make_tiny()


@pytest.fixture(scope="session")
def setting() -> "Setting":
    """The same network calibrated, with what a search needs of it."""
    from tests.search.setting import make_setting

    return make_setting()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the ViT for the digits."""
    from tests.small_run import write_weights

    return write_weights(tmp_path_factory.mktemp("weights") / "weights.safetensors")


@pytest.fixture
def here(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with `config.py` and `weights.safetensors`."""
    monkeypatch.chdir(tmp_path)
    from tests.small_run import CONFIG_FILE

    (tmp_path / "config.py").write_text(CONFIG_FILE)
    (tmp_path / "weights.safetensors").symlink_to(weights)
    return tmp_path
