"""Ctrl-C (SIGINT) ends the program at once, with one line that says how to go on.

Python's own handler raises `KeyboardInterrupt` in the main thread, but only when that thread leaves compiled
code. That is late in an XLA compilation, and in a callback the exception is swallowed. Here a thread of its
own waits for the signal and ends the process. Nothing is cleaned up, as after SIGKILL: files are whole or not
there, and locks end with the process.

Only the standard library is imported: this is in place before anything that takes time.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

STATUS = 130  # of a process that SIGINT has ended, as shells count it
_SHOW_CURSOR = b"\x1b[?25h\n"  # progress bars hide it

_remedies: list[str] = []
_leave_others: list[Callable[[str], None]] = []


def watch() -> None:
    """Ends the process from now on when SIGINT comes. Call it in the main thread.

    A process that was started with SIGINT ignored, as shells do for `command &`, goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    threading.Thread(target=_wait, args=(reading,), daemon=True).start()
    # The interpreter's C handler writes the signal's number to the pipe, whatever the main thread does.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, lambda number, frame: None)


@contextmanager
def going_on(remedy: str) -> Generator[None, None, None]:
    """A context in which an interrupted program goes on by `remedy`. Of nested ones the outermost counts."""
    _remedies.append(remedy)
    try:
        yield
    finally:
        _remedies.pop()


def tell_others(leave: Callable[[str], None]) -> None:
    """Sets what ends the other processes of a program. It is given the line, and ends this process too."""
    _leave_others[:] = [leave]


def remedy() -> str:
    """How to go on, after a semicolon. '': nothing has begun."""
    return f"; {_remedies[0]}" if _remedies else ""


def line() -> str:
    """What the user reads."""
    return f"evolq: interrupted{remedy()}"


def _wait(reading: int) -> None:
    while signal.SIGINT not in os.read(reading, 1):
        pass
    if sys.stderr is not None and os.isatty(2):
        os.write(2, _SHOW_CURSOR)
    for leave in _leave_others:
        leave(line())
    os.write(2, f"{line()}\n".encode())
    os._exit(STATUS)
