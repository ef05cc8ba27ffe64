import re
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from evolq_jax.figures.picture import Rendered, render
from evolq_jax.landscape.config import LOSSES, Kind
from evolq_jax.landscape.losses import columns_of, make_losses
from evolq_jax.landscape.pictures.draw import Labels, draw, scales
from evolq_jax.landscape.pictures.layers import layer_figure, layer_table
from evolq_jax.landscape.pictures.lines import lines_figure, losses_figure
from evolq_jax.landscape.pictures.plane import FINE, contour_figure, minimum_of, surface_figure
from evolq_jax.landscape.pictures.words import loss_label, loss_title
from evolq_jax.objective.terms import TERMS

X = np.linspace(-1, 1, 9)
BOWL = X**2
SITES = np.array(["a/qkv/weight", "a/proj/weight", "a/qkv/weight", "a/proj/weight"])
BLOCKS = np.array([0, 0, 1, 1])


def labels(kind: Kind) -> Labels:
    axes = ["along x", "along y"][: 1 + (kind == "plane")]
    return Labels(kind, axes, columns=["kl", "mse"], units=["nats", "1"])


def arrays(kind: str) -> dict[str, np.ndarray]:
    if kind == "plane":
        plane = BOWL[:, None] + 2 * BOWL
        return {"x": X, "y": X, "losses": np.stack([plane, 3 * plane])}
    if kind == "line":
        return {"x": X, "losses": np.stack([[BOWL, 2 * BOWL], [5 * BOWL, 1 - BOWL]])}
    roughness = np.arange(16.0).reshape(2, 4, 2)
    losses = np.zeros((2, 4, 2, 9))
    return {
        "x": X,
        "losses": losses,
        "sites": SITES,
        "blocks": BLOCKS,
        "roughness_stride1": roughness,
        "range_stride1": 0.1 * roughness,
    }


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("line", ["losses", "lines_kl", "lines_mse"]),
        ("plane", ["contour_kl", "surface_kl", "contour_mse", "surface_mse"]),
        ("layers", ["layers_kl", "layers_mse"]),
    ],
)
def test_every_kind_has_its_pictures(kind: Kind, names: list[str]) -> None:
    found = [*render(draw(arrays(kind), labels(kind)))]
    assert [picture.name for picture in found] == names
    assert found == [*render(draw(arrays(kind), labels(kind)))]
    for picture in found:
        assert_texts_are_inside(picture)


def assert_texts_are_inside(picture: Rendered) -> None:
    """The SVG's texts begin inside of its page."""
    text = picture.files["svg"].decode()
    width, height = (float(size) for size in re.findall(r'(?:width|height)="([0-9.]+)pt"', text)[:2])
    places = re.findall(r'<text [^>]*?translate\((\S+) (\S+)\)|<text [^>]*? x="(\S+)" y="(\S+)"', text)
    assert places
    for place in places:
        x, y = (float(number) for number in place if number)
        assert 0 <= x <= width
        assert 0 <= y <= height


def titles_of(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def labels_of(figure: Figure) -> list[str]:
    axes = figure.axes[0]
    return [axes.get_xlabel(), axes.get_ylabel()]


def test_each_loss_has_a_panel_in_its_own_unit() -> None:
    lines = np.stack([BOWL, 7 + 100 * BOWL, np.zeros(9)])
    figure = losses_figure(
        X, lines, ["kl", "mse", "cosine"], units=["nats", "squared logits", "1"], label="x"
    )
    assert titles_of(figure) == ["KL to float (nats)", "MSE (squared logits)", "cosine distance"]
    for axes, line in zip(figure.axes, lines, strict=False):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), line)
        assert axes.lines[1].get_xdata() == [0.0, 0.0]  # the origin


def test_lines_have_a_legend_and_the_origin_where_it_is_in_view() -> None:
    lines = np.stack([BOWL, 2 * BOWL, 3 * BOWL])
    figure = lines_figure(X, lines, label="along x", name="KL")
    assert labels_of(figure) == ["along x", "KL"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1", "2", "3"]
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}) == 4
    alone = lines_figure(X + 2, lines[:1], label="along x", name="KL")
    assert (alone.legends, len(alone.axes[0].lines)) == ([], 1)


def cells(figure: Figure) -> QuadMesh:
    return next(child for child in figure.axes[0].collections if isinstance(child, QuadMesh))


def contour(plane: np.ndarray, limits: tuple[float, float] | None = None) -> Figure:
    x = np.linspace(-1, 1, len(plane))
    return contour_figure(x, x, plane, labels=["along x", "along y"], name="KL (nats)", limits=limits)


def marks(figure: Figure) -> dict[str, tuple[float, float]]:
    return {
        str(line.get_label()): (float(line.get_xdata()[0]), float(line.get_ydata()[0]))  # type: ignore[index]
        for line in figure.axes[0].lines
    }


def test_a_plane_is_cells_with_the_origin_and_the_minimum() -> None:
    plane = (X[:, None] - 0.5) ** 2 + 2 * (X + 0.25) ** 2 + 3
    figure = contour(plane)
    assert labels_of(figure) == ["along x", "along y"]
    assert marks(figure) == {"origin": (0.0, 0.0), "minimum, 3": (-0.25, 0.5)}
    np.testing.assert_allclose(np.asarray(cells(figure).get_array()).ravel(), plane.ravel())
    assert len(figure.axes[0].collections) == 1  # no lines on a coarse grid


def test_only_a_fine_grid_has_contour_lines() -> None:
    for points, parts in ((FINE - 1, 1), (FINE, 2)):
        bowl = np.linspace(-1, 1, points) ** 2
        assert len(contour(bowl[:, None] + bowl).axes[0].collections) == parts


def test_limits_make_two_pictures_comparable() -> None:
    low, high = (contour(value + np.add.outer(BOWL, BOWL), (0.0, 5.0)) for value in (0.0, 3.0))
    assert cells(low).get_clim() == cells(high).get_clim() == (0.0, 5.0)
    bowl, axes = np.add.outer(BOWL, BOWL), ["along x", "along y"]
    surface = surface_figure(X, X, bowl, labels=axes, name="KL", limits=(0.0, 5.0))
    assert surface.axes[0].get_zlim() == (0.0, 5.0)  # type: ignore[attr-defined]
    line = lines_figure(X, BOWL[None], label="x", name="KL", limits=(0.0, 5.0)).axes[0]
    assert line.get_ylim() == pytest.approx((-0.25, 5.25))


def test_the_scales_of_a_scan_are_those_of_its_pictures() -> None:
    assert scales(arrays("line"), labels("line")) == {"kl": (0.0, 2.0), "mse": (0.0, 5.0)}
    found = scales(arrays("layers"), labels("layers"))
    assert found["kl"] == pytest.approx((0.05, 0.65))
    assert found["roughness of mse"] == (8.5, 14.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.25], ids=str)
def test_a_plane_without_numbers_or_without_differences_can_be_drawn(value: float) -> None:
    flat = np.full((1, 9, 9), value)
    says = Labels("plane", ["x", "y"], ["kl"], ["nats"])
    assert len([*render(draw({"x": X, "y": X, "losses": flat}, says))]) == 2


@pytest.mark.parametrize("value", [np.nan, -np.inf], ids=str)
def test_a_hole_is_no_minimum(value: float) -> None:
    hole = arrays("plane")["losses"][0].copy()
    hole[4, 4] = value
    assert minimum_of(hole) == (3, 4)
    assert cells(contour(hole)).get_clim() == (hole[3, 4], hole.max(initial=0, where=np.isfinite(hole)))


def test_layers_show_the_range_beside_its_share_and_begin_at_zero() -> None:
    numbers = np.stack([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]])
    figure = layer_figure(SITES, BLOCKS, numbers, loss=("kl", "nats"))
    assert titles_of(figure) == ["range of KL to float", "roughness, as a share of the range"]
    assert [axes.images[0].get_clim() for axes in figure.axes[:2]] == [(0.0, 0.4), (0.0, 0.8)]


def test_every_loss_has_a_name_in_words() -> None:
    names: Sequence[str] = [*LOSSES, *(name for name in TERMS if name != "local")]
    for column in columns_of(make_losses([*dict.fromkeys(names)], batch_size=2, with_labels=True), (0.3, 1)):  # type: ignore[arg-type]
        assert "_" not in loss_label(*column)
    assert loss_title("info_nce_t1e-05") == "infoNCE, T = 1e-05"
    assert loss_label("my_own_loss", "1") == "my own loss"
    assert loss_label("error_rate", "share of images") == "error rate (share)"


def test_layers_are_a_table_of_kind_and_block() -> None:
    kinds, places, table = layer_table(SITES, BLOCKS, np.array([1.0, 2.0, 3.0, 4.0]))
    assert (kinds, places) == (["qkv", "proj"], ["0", "1"])
    np.testing.assert_array_equal(table, [[1.0, 3.0], [2.0, 4.0]])
    sites = np.array(["a/qkv/weight", "b/qkv/weight", "b/proj/weight"])
    kinds, places, table = layer_table(sites, np.array([0, 0, 0]), np.array([1.0, 2.0, 3.0]))
    assert (kinds, places) == (["qkv", "proj"], ["a 0", "b 0"])
    np.testing.assert_array_equal(table, [[1.0, 2.0], [np.nan, 3.0]])
