import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from evolq_jax import figures
from evolq_jax.landscape import plot
from evolq_jax.landscape.config import Kind

X = np.linspace(-1, 1, 9)
BOWL = X**2
SITES = np.array(["a/qkv/weight", "a/proj/weight", "a/qkv/weight", "a/proj/weight"])
BLOCKS = np.array([0, 0, 1, 1])


def labels(kind: Kind) -> plot.Labels:
    axes = ["along x", "along y"][: 1 + (kind == "plane")]
    return plot.Labels(kind, axes, columns=["kl", "mse"], units=["nats", "1"])


def arrays(kind: str) -> dict[str, np.ndarray]:
    if kind == "plane":
        plane = BOWL[:, None] + 2 * BOWL
        return {"x": X, "y": X, "losses": np.stack([plane, 3 * plane])}
    if kind == "line":
        return {"x": X, "losses": np.stack([[BOWL, 2 * BOWL], [5 * BOWL, 1 - BOWL]])}
    roughness = np.arange(16.0).reshape(2, 4, 2)
    losses = np.zeros((2, 4, 2, 9))
    return {"x": X, "losses": losses, "sites": SITES, "blocks": BLOCKS, "roughness_stride1": roughness}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("line", ["losses", "lines_kl", "lines_mse"]),
        ("plane", ["contour_kl", "surface_kl", "contour_mse", "surface_mse"]),
        ("layers", ["roughness_kl", "roughness_mse"]),
    ],
)
def test_every_kind_has_its_pictures(kind: Kind, names: list[str]) -> None:
    files = dict(plot.draw(arrays(kind), labels(kind)))
    assert sorted(files) == sorted(f"{name}.{ending}" for name in names for ending in ("png", "svg"))
    for name, content in files.items():
        if name.endswith("png"):
            width = Image.open(io.BytesIO(content)).width / figures.DPI
            assert 0.6 * figures.COLUMN_WIDTH < width < 1.2 * figures.COLUMN_WIDTH
        else:
            assert b"<svg" in content
    assert files == dict(plot.draw(arrays(kind), labels(kind)))


def labels_of(figure: Figure) -> list[str]:
    axes = figure.axes[0]
    return [axes.get_xlabel(), axes.get_ylabel()]


def test_losses_of_any_size_share_an_axis() -> None:
    figure = plot.losses_figure(X, np.stack([BOWL, 7 + 100 * BOWL, np.zeros(9)]), ["a", "b", "c"], "along x")
    first, second, flat = (np.asarray(line.get_ydata()) for line in figure.axes[0].lines)
    np.testing.assert_allclose(first, BOWL)
    np.testing.assert_allclose(second, first)
    np.testing.assert_array_equal(flat, 0.0)
    assert labels_of(figure) == ["along x", "loss, scaled to its range"]
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(styles) == 3


def test_lines_and_planes_name_their_axes_and_units() -> None:
    assert labels_of(plot.lines_figure(X, arrays("line")["losses"][0], "along x", "kl (nats)")) == [
        "along x",
        "kl (nats)",
    ]
    plane = arrays("plane")["losses"][0]
    contour = plot.contour_figure(X, X, plane, labels=["along x", "along y"], name="kl (nats)")
    assert labels_of(contour) == ["along x", "along y"]
    assert contour.axes[1].get_ylabel() == "kl (nats)"
    surface = plot.surface_figure(X, X, plane, labels=["along x", "along y"], name="kl (nats)")
    assert labels_of(surface) == ["along x", "along y"]


def test_a_plane_with_a_hole_can_be_drawn() -> None:
    plane = arrays("plane")["losses"].copy()
    plane[0, 3, 3] = np.nan
    assert dict(plot.draw(arrays("plane") | {"losses": plane}, labels("plane")))


def test_layers_are_a_table_of_kind_and_block() -> None:
    kinds, places, table = plot.layer_table(SITES, BLOCKS, np.array([1.0, 2.0, 3.0, 4.0]))
    assert (kinds, places) == (["qkv", "proj"], ["0", "1"])
    np.testing.assert_array_equal(table, [[1.0, 3.0], [2.0, 4.0]])
    sites = np.array(["a/qkv/weight", "b/qkv/weight", "b/proj/weight"])
    kinds, places, table = plot.layer_table(sites, np.array([0, 0, 0]), np.array([1.0, 2.0, 3.0]))
    assert (kinds, places) == (["qkv", "proj"], ["a 0", "b 0"])
    np.testing.assert_array_equal(table, [[1.0, 2.0], [np.nan, 3.0]])
