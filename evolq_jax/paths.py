"""Paths that a user gives: all are expanded, checked and shown in the same way, and opened safely."""

import errno
import os
import stat
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from evolq_jax.errors import UserError

MAX_TEXT_BYTES = 16 * 2**20  # of a text file that is read whole; ImageNet-21k's class list has 2 MB
_MAX_NAME_BYTES = 200  # file systems take 255; a run adds a number and an ending
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


def user_path(given: str | Path, what: str) -> Path:
    """A path as a user wrote it, with `~` and `~user` expanded. There need not be anything at it.

    Afterwards `exists`, `is_dir` and `is_file` raise nothing.

    Args:
        given: the path.
        what: what it is of, for messages: `data.class_index`, `--run-dir`.

    Raises:
        UserError: the system cannot hold such a path, a folder above it may not be read, or there is no such
            home folder.
    """
    text = os.fspath(given)
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        home = Path(text).parts[0]
        raise UserError(f"{what} '{text}': there is no home folder '{home}'; write the whole path") from error
    try:
        path.stat()
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise UserError(f"{what} '{shortened(text)}': {error.strerror}") from error
    except ValueError as error:  # a NUL byte, or what file names cannot encode
        raise UserError(f"{what} '{shortened(text)}' holds a character that no path can have") from error
    return path


def has_home() -> bool:
    """Whether this user has a home folder. In a container there may be none."""
    try:
        return Path.home().is_absolute()
    except RuntimeError:
        return False


def is_plain_word(name: str) -> bool:
    """Whether a folder can be called so: no slash, nothing that cannot be printed, not too long."""
    return (
        bool(name)
        and name.isprintable()
        and Path(name).name == name
        and len(os.fsencode(name)) <= _MAX_NAME_BYTES
    )


def open_regular(path: Path) -> BinaryIO:
    """Opens a file to read. A pipe, a device or a socket, on which reading could wait forever, is refused.

    Raises:
        OSError: there is no such file, it cannot be read, or it is not regular.
    """
    if stat.S_ISREG(path.stat().st_mode):  # a device is not even opened
        # Without waiting, should a pipe have taken the file's place just now.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        if stat.S_ISREG(os.fstat(number).st_mode):
            return os.fdopen(number, "rb")
        os.close(number)
    kind = errno.EISDIR if path.is_dir() else errno.EINVAL
    reason = os.strerror(kind) if kind == errno.EISDIR else "it is a pipe, a device or a socket, not a file"
    raise OSError(kind, reason, str(path))


def read_small(path: Path, what: str) -> bytes:
    """The content of a text file of at most `MAX_TEXT_BYTES`.

    Raises:
        UserError: it cannot be read, is not regular, or is larger.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror}") from error
    if len(content) > MAX_TEXT_BYTES:
        raise UserError(f"{what} {path} has more than {MAX_TEXT_BYTES >> 20} MiB: it is some other file")
    return content


def printable(text: str) -> str:
    """The text with control characters written out, so that no file name can command a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, at_most: int = 60) -> str:
    """The text, or its beginning if it is long."""
    return text if len(text) <= at_most else f"{text[:at_most]}..."


@contextmanager
def atomic(path: Path) -> Generator[BinaryIO, None, None]:
    """A new file that gets its name only when it is complete and on disk."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
