"""A lock, so that only one process at a time uses a run's directory."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from evolq_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
# What file systems without locks answer, some network ones among them: there nothing is guarded.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def locked(folder: Path) -> Generator[None, None, None]:
    """Keeps other processes out of a folder. The system releases the lock when its holder dies.

    Raises:
      UserError: another process holds it.
      OSError: the folder cannot be written.
    """
    if fcntl is None:
        yield
        return
    descriptor = _take(folder)
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        os.close(descriptor)


def _take(folder: Path) -> int:
    assert fcntl is not None
    path = folder / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise UserError(
                f"another process is at work in '{folder}': wait until it has ended, or name another with "
                "--run-dir"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
        if _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)  # its holder has just taken the file away: this lock guards nothing


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
