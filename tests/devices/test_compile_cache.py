import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from evolq_jax.devices import compile_cache
from evolq_jax.devices.compile_cache import describe, identity, mend, size_of, unused, use_compile_cache
from evolq_jax.errors import UserError

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def setting(name: str) -> Any:
    return getattr(jax.config, name)


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """JAX knows no folder, and afterwards it has the one of all tests again."""
    before = {name: setting(name) for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    for name in (compile_cache.VARIABLE, "EVOLQ_CACHE"):
        monkeypatch.delenv(name, raising=False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_folder_is_that_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = use_compile_cache().folder
    assert found is not None
    assert found.parent == tmp_path / ".cache" / "evolq_jax" / "programs"
    assert found.stat().st_mode & 0o077 == 0
    assert setting("jax_compilation_cache_dir") == str(found)
    assert setting("jax_persistent_cache_min_compile_time_secs") == 0


def test_variables_move_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOLQ_CACHE", str(tmp_path / "a"))
    found = use_compile_cache().folder
    assert found is not None
    assert found.parent == tmp_path / "a" / "programs"
    monkeypatch.setenv("EVOLQ_COMPILE_CACHE", str(tmp_path / "b"))
    found = use_compile_cache().folder
    assert found is not None
    assert found.parent == tmp_path / "b"


@pytest.mark.parametrize("word", ["off", "OFF", "none", "0"])
def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("EVOLQ_COMPILE_CACHE", word)
    found = use_compile_cache()
    assert found.folder is None
    assert not found.warning
    assert not setting("jax_enable_compilation_cache")
    assert "not kept" in describe()


def test_an_empty_word_names_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVOLQ_COMPILE_CACHE", str(tmp_path / "a"))
    found = use_compile_cache("").folder
    assert found is not None
    assert found.parent == tmp_path / "a"


def test_what_jax_was_told_stands(tmp_path: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.7)
    assert use_compile_cache().folder == tmp_path
    assert setting("jax_persistent_cache_min_compile_time_secs") == 0.7


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = use_compile_cache(tmp_path / "file" / "below")
    assert found.folder is None
    assert "set EVOLQ_COMPILE_CACHE" in found.warning


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has other rights")
def test_a_folder_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    folder = use_compile_cache(tmp_path).folder
    assert folder is not None
    folder.chmod(0o777)
    found = use_compile_cache(tmp_path)
    assert found.folder is None
    assert "other users can write it" in found.warning


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no path can have"):
        use_compile_cache("a\0b")
    with pytest.raises(UserError, match="above zero"):
        use_compile_cache(tmp_path, max_gib=0)


def test_the_oldest_go_when_it_is_full(tmp_path: Path) -> None:
    folder = use_compile_cache(tmp_path).folder
    assert folder is not None
    for age in range(5):
        path = folder / f"program{age}-cache"
        path.write_bytes(bytes(1 << 20))
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    use_compile_cache(tmp_path, max_gib=3 / 1024)
    assert sorted(path.name for path in folder.glob("*-cache")) == [f"program{age}-cache" for age in range(3)]
    assert size_of(folder) == (3, 3 << 20)


def test_a_damaged_entry_is_written_again(tmp_path: Path) -> None:
    folder = use_compile_cache(tmp_path).folder
    assert folder is not None
    for name in ("jit_score-1", "jit_score-2", "jit_scores-1"):
        (folder / name).write_bytes(b"half")
    told = mend("Error reading persistent compilation cache entry for 'jit_score': ValueError: cut off")
    assert "compiled again" in told
    assert [path.name for path in folder.glob("jit*")] == ["jit_scores-1"]
    full = "Error writing persistent compilation cache entry for 'jit_a': OSError: [Errno 28] No space left"
    assert mend(full).endswith("No space left")
    assert mend("some other warning") == ""


PROGRAM = """
import sys, warnings
import jax
from evolq_jax.devices.compile_cache import mend, use_compile_cache
warnings.showwarning = lambda message, *rest: print(mend(str(message)))
seen = []
jax.monitoring.register_event_listener(lambda name, **kwargs: seen.append(name.split("/")[-1]))
folder = use_compile_cache(sys.argv[1]).folder
@jax.jit
def sum_of_squares(x):
    return (x ** 2).sum()
assert sum_of_squares(jax.numpy.arange(3.0)) == 5
print(seen.count("cache_hits"), seen.count("cache_misses"), folder)
"""


def test_processes_share_it_and_survive_half_an_entry(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    variables = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}

    def run() -> tuple[str, ...]:
        shown = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
        return tuple(shown.splitlines())

    hits, misses, folder = run()[-1].split(" ", 2)
    assert (hits, int(misses) > 0) == ("0", True)
    assert run()[-1].split()[1] == "0"
    (kept,) = Path(folder).glob("jit_sum_of_squares-*")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    told, counts = run()
    assert "compiled again" in told
    assert counts.split()[:2] != ["0", "0"]
    assert kept.stat().st_size == len(whole)


def test_what_is_kept_has_a_name_until_some_is_lost(tmp_path: Path) -> None:
    folder = use_compile_cache(tmp_path).folder
    assert folder is not None
    first = identity()
    assert first
    assert identity() == first
    (folder / "jit_score-1").write_bytes(b"half")
    mend("Error reading persistent compilation cache entry for 'jit_score': ValueError: cut off")
    assert identity() not in ("", first)
    assert size_of(folder) == (0, 0)
    use_compile_cache("off")
    assert identity() == ""


def test_what_is_kept_can_be_passed_over(tmp_path: Path) -> None:
    hits: list[str] = []

    def listen(event: str, **about: str | int) -> None:
        hits.extend([event] * event.endswith("/cache_hits"))

    def compiled() -> int:
        before = len(hits)
        jax.clear_caches()
        jax.jit(lambda x: x * 1.6875)(np.ones(7, np.float32))
        return len(hits) - before

    use_compile_cache(tmp_path)
    reset_cache()
    jax.monitoring.register_event_listener(listen)
    try:
        compiled()
        with unused():
            assert compiled() == 0
        assert compiled() == 1
    finally:
        jax.monitoring.unregister_event_listener(listen)
