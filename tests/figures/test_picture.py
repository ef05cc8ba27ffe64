import io
import re

import pytest
from matplotlib.figure import Figure
from PIL import Image

from evolq_jax.figures.picture import DPI, Picture, Rendered, render
from evolq_jax.figures.style import COLUMN_WIDTH, TEXT, one_column, panels


def rendered(title: str) -> Rendered:
    def make() -> Figure:
        figure = one_column(1.5)
        figure.add_subplot().set_title(title)
        return figure

    (found,) = render([Picture("name", "what it shows", make)])
    return found


def test_a_picture_has_three_files_which_are_always_the_same() -> None:
    found = rendered("title")
    assert (found.name, found.caption, [*found.files]) == ("name", "what it shows", ["png", "svg", "pdf"])
    assert found == rendered("title")
    assert not re.search(rb"<dc:date>", found.files["svg"])
    assert b"CreationDate" not in found.files["pdf"]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_lowest_panels_have_the_numbers_and_none_is_empty(number: int) -> None:
    figure = one_column(1.5)
    drawn = panels(figure, number)
    assert [axes for axes in figure.axes if axes.axison] == drawn
    assert len(drawn) == number
    numbered = [axes.xaxis.get_tick_params()["labelbottom"] for axes in drawn]
    assert numbered == [place + 2 >= number for place in range(number)]


def test_a_picture_is_as_wide_as_a_column() -> None:
    files = rendered("title").files
    image = Image.open(io.BytesIO(files["png"]))
    assert image.width / DPI == pytest.approx(COLUMN_WIDTH, abs=0.01)
    assert image.info["dpi"] == pytest.approx((DPI, DPI), abs=0.01)
    assert f'width="{72 * COLUMN_WIDTH:g}pt"'.encode() in files["svg"]


@pytest.mark.parametrize("title", ["plain", "half a $ and \\frac", "$x$ < & >"])
def test_text_stays_text_whatever_it_says(title: str) -> None:
    files = rendered(title).files
    escaped = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert re.search(rf"<text[^>]*{TEXT}px[^>]*>{re.escape(escaped)}</text>".encode(), files["svg"])
    assert b"/FontFile2" in files["pdf"]  # TrueType, not Type 3
    assert b"/Type3" not in files["pdf"]
