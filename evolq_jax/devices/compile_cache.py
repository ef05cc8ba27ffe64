"""Compiled programs on disk, so that a second process does not compile them again.

JAX's own persistent cache does the work. Here is what it leaves open: where the folder is, that it stays
small, that it belongs to this user and this kind of processor, and what happens to a damaged entry.
"""

import hashlib
import os
import platform
import re
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from evolq_jax.errors import UserError
from evolq_jax.paths import has_home, user_path

VARIABLE = "EVOLQ_COMPILE_CACHE"  # a folder, or `off`
OFF = ("off", "none", "false", "no", "0")
MAX_GIB = 2.0
_GIB = 2**30
_IDENTITY = "identity"  # a file beside the programs
_CPU_INFO = Path("/proc/cpuinfo")
_FAILED = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '([\w.-]+)': (.*)", re.DOTALL
)


class CompileCache(NamedTuple):
    """Where compiled programs are kept."""

    folder: Path | None  # None: they are not kept
    told: str  # who says so: the variable, the option, JAX; or why there is none
    warning: str = ""  # a line for the user, where it was not meant to be so


def use_compile_cache(where: str | Path | None = None, max_gib: float = MAX_GIB) -> CompileCache:
    """Keeps compiled programs between processes. The command line does this by itself.

    Several processes can share a folder. It is cut to its size when a process begins: what was not used for
    longest goes. A folder that cannot be written, or that other users can write, is not used: whoever
    writes there could have this process run anything.

    Args:
      where: a folder, or `off`. None: `$EVOLQ_COMPILE_CACHE`; without it `programs` in `$EVOLQ_CACHE` or in
        `~/.cache/evolq_jax`. If JAX was given a folder (`JAX_COMPILATION_CACHE_DIR`), that one is left.
      max_gib: how much is kept, for each kind of processor.

    Raises:
      UserError: `where` is no path, or `max_gib` is not above zero.
    """
    if not max_gib > 0:
        raise UserError(f"max_gib of the compile cache must be above zero, not {max_gib}")
    found = _decide(where)
    if found.folder is not None and found.told != "JAX_COMPILATION_CACHE_DIR":
        _prune(found.folder, int(max_gib * _GIB))
        jax.config.update("jax_compilation_cache_dir", str(found.folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # small programs are many
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    elif found.folder is None:
        jax.config.update("jax_enable_compilation_cache", False)
    return found


def _decide(where: str | Path | None) -> CompileCache:
    """The folder, made and checked."""
    told, where = "--compile-cache", where or None  # an empty word names no folder
    if where is None:
        told, where = VARIABLE, os.environ.get(VARIABLE) or None
    if where is None and (set_in_jax := _in_jax("compilation_cache_dir")):
        return CompileCache(Path(set_in_jax), "JAX_COMPILATION_CACHE_DIR")
    if where is None and not _in_jax("enable_compilation_cache"):
        return CompileCache(None, "JAX_ENABLE_COMPILATION_CACHE")
    if where is not None and str(where).lower() in OFF:
        return CompileCache(None, told)
    if where is None:
        above = os.environ.get("EVOLQ_CACHE")
        if not above and not has_home():
            return CompileCache(None, "no home folder")
        told, where = "the default", user_path(above or "~/.cache/evolq_jax", "EVOLQ_CACHE") / "programs"
    folder = user_path(where, told) / _processor()
    return _checked(folder, told)


def _checked(folder: Path, told: str) -> CompileCache:
    """The folder if it can be used, else the reason."""
    wrong = ""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        if not os.access(folder, os.W_OK | os.X_OK):
            wrong = "it cannot be written"
        elif hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
            wrong = "other users can write it"
    except OSError as error:
        wrong = str(error.strerror)
    if not wrong:
        return CompileCache(folder, told)
    remedy = f"set {VARIABLE} to a folder of yours, or to off"
    why = f"{folder}: {wrong}"
    return CompileCache(None, why, f"compiled programs are not kept: {why}; {remedy}")


def _processor() -> str:
    """Names the kind of processor, since programs for CPUs use what the one at hand can do.

    A home folder may be that of many machines.
    """
    facts = [platform.machine(), platform.processor()]
    with suppress(OSError):
        lines = _CPU_INFO.read_text().splitlines()
        facts += [next((line for line in lines if line.startswith(key)), "") for key in ("flags", "Features")]
    return f"{platform.machine() or 'cpu'}-{hashlib.sha256('|'.join(facts).encode()).hexdigest()[:8]}"


@contextmanager
def unused() -> Generator[None, None, None]:
    """Meanwhile programs are compiled, whether they are kept or not: to measure how long that takes."""
    before = _in_jax("enable_compilation_cache")
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()  # JAX asks the setting but once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        reset_cache()


def describe() -> str:
    """Where this process keeps compiled programs, and how many there are, in a line."""
    folder = _in_jax("compilation_cache_dir")
    if not folder or not _in_jax("enable_compilation_cache"):
        return f"not kept ({VARIABLE} names a folder)"
    number, size = size_of(Path(folder))
    return f"{number}, {size / 2**20:.0f} MiB, in {folder} ({VARIABLE}=off keeps none)"


def identity() -> str:
    """A name of the programs that are kept. It changes when some are lost. '': none are kept."""
    folder = _in_jax("compilation_cache_dir")
    if not folder or not _in_jax("enable_compilation_cache"):
        return ""
    with suppress(OSError):
        return (Path(folder) / _IDENTITY).read_text()
    return _rename(Path(folder))


def _rename(folder: Path) -> str:
    """Gives what a folder keeps a new name."""
    name = uuid.uuid4().hex
    with suppress(OSError):
        (folder / _IDENTITY).write_text(name)
    return name


def size_of(folder: Path) -> tuple[int, int]:
    """The number of programs that a folder keeps, and their bytes."""
    sizes = [status.st_size for _, status in _entries(folder)]
    return len(sizes), sum(sizes)


def mend(warning: str) -> str:
    """What a warning of JAX means for the user; '' if it is none about the cache.

    A process that was killed while it wrote leaves half an entry, which JAX would find unreadable for ever.
    So the entries of that program are removed. They are written again when it is compiled.
    """
    match = _FAILED.match(warning)
    folder = _in_jax("compilation_cache_dir")
    if match is None or not folder:
        return ""
    kind, program, reason = match.groups()
    for path in Path(folder).glob(f"{program}-*"):
        with suppress(OSError):
            path.unlink()
    _rename(Path(folder))
    if kind == "reading":
        return "a kept program was damaged: it is compiled again"
    return f"compiled programs cannot be kept in {folder}: {reason.strip()}"


def _in_jax(name: str) -> Any:
    """A setting of JAX, which has no types for them."""
    return getattr(jax.config, f"jax_{name}")


def _prune(folder: Path, max_bytes: int) -> None:
    """Removes what was not used for longest, until the rest fits."""
    found = list(_entries(folder))
    total = sum(status.st_size for _, status in found)
    for path, status in sorted(found, key=lambda entry: max(entry[1].st_atime, entry[1].st_mtime)):
        if total <= max_bytes:
            return
        with suppress(OSError):
            path.unlink()
            _rename(folder)
        total -= status.st_size


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a folder. Another process may remove some meanwhile."""
    with suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            with suppress(OSError):
                if entry.name != _IDENTITY and entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)
