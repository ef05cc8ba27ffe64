"""A picture and its files: PNG to look at, SVG and PDF to print and to edit, with their text as text."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from evolq_jax.errors import UserError
from evolq_jax.figures.style import RC

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 300
# By format: what would carry a date is left out, so that equal pictures are equal files.
METADATA: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


class Picture(NamedTuple):
    """A picture that is not yet drawn."""

    name: str  # of its files, without their ending
    caption: str  # one or two sentences
    make: Callable[[], Figure]  # called in this package's style


class Rendered(NamedTuple):
    """A picture as files."""

    name: str
    caption: str
    files: dict[str, bytes]  # by format


def check_plotting(otherwise: str = "") -> None:
    """Checks that pictures can be drawn.

    Raises:
      UserError: there is no matplotlib; `otherwise` is a way without it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"pictures need matplotlib: pip install 'evolq_jax[plot]'{otherwise}")


def render(pictures: Iterable[Picture]) -> Iterator[Rendered]:
    """Draws pictures to files, one after the other. The same picture gives the same bytes."""
    import matplotlib as mpl

    for name, caption, make in pictures:
        with mpl.rc_context(RC):
            figure = make()
            files = {kind: _file(figure, kind) for kind in METADATA}
        yield Rendered(name, caption, files)


def _file(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, metadata=METADATA[kind])
    return buffer.getvalue()
