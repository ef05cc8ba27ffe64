"""Distributions of weights before and after quantization: histograms, numbers and a picture.

Each output channel has its own scale, so the values of a quantized layer lie on many grids at once. So there
are two views: the plain values, and the values divided by their channel's scale ("in steps"). In steps all
grids are the integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from evolq_jax.figures.picture import Picture, render
from evolq_jax.figures.style import COLOURS, one_column
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import fake_quant_weights
from evolq_jax.quant.spec import Specs, select
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_STEP = 4  # bins of the float weights' histogram to a quantizer's step
BINS = 81  # of plain values, odd: zero is the middle of one
REACH = 6.0  # standard deviations of plain values that the bins span to either side, at most
VIEWS = ("plain", "steps")
Distribution = dict[str, np.ndarray]


def weight_distributions(
    specs: Specs, params: Params, qparams: QParams, groups: Mapping[str, Sequence[str]]
) -> dict[str, Distribution]:
    """Histograms and moments of weights before and after quantization, pooled by groups of layers.

    Args:
      specs: the network's quantizers; uniform for weights.
      params: float parameters.
      qparams: the quantizers' numbers.
      groups: the group's name -> patterns of weight sites.

    Returns:
      For each group:

      - the bins' edges, `edges_plain` [82] and `edges_steps`;
      - the shares of all weights in the bins: `before_plain`, `before_steps`, `after_plain` and `after_steps`
        (here a bin is four of `edges_steps`). The outermost plain bins include everything beyond six standard
        deviations;
      - `std`, `kurtosis` (excess; 0 for a normal distribution), `steps_std` and `steps_kurtosis` [2]: before
        and after;
      - `zeros`, the share of weights that become 0;
      - `snr`, the weights' mean square divided by that of their error, in decibels.

    Raises:
      UserError: a pattern matches no quantized weight.
    """
    chosen = dict(specs)
    weights = [name for name in flatten(params) if name in chosen]
    quantized = flatten(fake_quant_weights(specs, params, qparams))
    leaves, found = flatten(params), {}
    for group, patterns in groups.items():
        names = select(patterns, weights)
        before, after = (
            _pool([_values(tree[name], qparams[name].scale) for name in names])
            for tree in (leaves, quantized)
        )
        found[group] = _distribution(before, after)
    return found


def _values(weight: Array, scale: Array) -> np.ndarray:
    """A weight as it is, and divided by its channels' scales: [2, number of values]."""
    plain = np.asarray(weight, np.float64)
    return np.stack([plain, plain / np.asarray(scale, np.float64)]).reshape(2, -1)


def _pool(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(values, axis=1)


def _distribution(before: np.ndarray, after: np.ndarray) -> Distribution:
    """Of values [2, number]: plain, and in steps."""
    both = np.stack([before, after])
    reach = min(np.abs(both[:, 0]).max(), REACH * before[0].std())
    steps = np.ceil(np.abs(both[:, 1]).max()) + 0.5  # bins centred on the integers
    edges = {
        "plain": np.linspace(-reach, reach, BINS + 1),
        "steps": np.linspace(-steps, steps, round(2 * steps) * PER_STEP + 1),
    }
    found: Distribution = {f"edges_{view}": edges[view] for view in VIEWS}
    for view, values in zip(VIEWS, both.swapaxes(0, 1), strict=True):
        for name, one in zip(("before", "after"), values, strict=True):
            bins = edges[view][::PER_STEP] if (view, name) == ("steps", "after") else edges[view]
            found[f"{name}_{view}"] = np.histogram(np.clip(one, bins[0], bins[-1]), bins)[0] / one.size
    for prefix, values in (("", both[:, 0]), ("steps_", both[:, 1])):
        found[f"{prefix}std"] = values.std(-1)
        found[f"{prefix}kurtosis"] = np.asarray([excess_kurtosis(one) for one in values])
    error = ((after[0] - before[0]) ** 2).mean()
    found["zeros"] = np.asarray((after[0] == 0).mean())
    found["snr"] = 10 * np.log10((before[0] ** 2).mean() / error)
    return found


def excess_kurtosis(x: np.ndarray) -> float:
    """`E[(x - mean)^4] / var^2 - 3`: 0 for a normal distribution, -1.2 for a uniform one."""
    centred = x - x.mean()
    return float((centred**4).mean() / (centred**2).mean() ** 2 - 3)


def draw_weights(distributions: Mapping[str, Distribution], name: str) -> Iterator[tuple[str, bytes]]:
    """The files (name, content) of a picture of all groups: PNG, SVG and PDF."""
    for picture in render([Picture(name, "weights", partial(weights_figure, distributions))]):
        yield from ((f"{name}.{kind}", content) for kind, content in picture.files.items())


def weights_figure(distributions: Mapping[str, Distribution]) -> Figure:
    """One row for each group: plain values on the left, values in steps on the right.

    Heights are the share of weights in a bin (left) or in a step (right), on a logarithmic axis.
    """
    figure = one_column(0.55 + 0.72 * len(distributions))
    rows = figure.subplots(len(distributions), 2, squeeze=False, gridspec_kw={"width_ratios": (1, 1)})
    for row, (group, found) in zip(rows, distributions.items(), strict=True):
        for axes, view in zip(row, VIEWS, strict=True):
            _draw(axes, found, view)
        row[0].set_ylabel(group)
    rows[-1][0].set_xlabel("weight")
    rows[-1][1].set_xlabel("weight / its channel's scale")
    figure.legend(*rows[0][0].get_legend_handles_labels(), loc="outside upper center", ncol=2)
    return figure


def _draw(axes: Axes, found: Distribution, view: str) -> None:
    edges, before, after = found[f"edges_{view}"], found[f"before_{view}"], found[f"after_{view}"]
    if view == "steps":
        before = before * PER_STEP
    axes.stairs(before, edges, fill=True, color=COLOURS[5], label="float")
    after_edges = edges[::PER_STEP] if view == "steps" else edges
    axes.stairs(after, after_edges, color=COLOURS[1], linewidth=0.8, label="quantized")
    axes.set_yscale("log")
    axes.set_ylim(1e-5, 2)
    axes.set_yticks([1e-4, 1e-2, 1])
    axes.minorticks_off()
    axes.locator_params(axis="x", nbins=4)  # half a column
    axes.margins(x=0)
