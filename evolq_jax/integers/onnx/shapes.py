"""Primitives that move, cut, join and reduce."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.integers.onnx.elementwise import Handler, operate
from evolq_jax.integers.onnx.layout import Layout
from evolq_jax.integers.onnx.values import Constant, Tensor, Value, natural, shape_of

COMPUTED = "the network reads at indices that it computes, or at several at once, which ONNX cannot"


def _whole(layout: Layout, eqn: Any, values: list[Value], place: int = 0) -> Value:
    """An operand with all its axes as long as they are."""
    return layout.full(values[place], tuple(eqn.invars[place].aval.shape))


def _reshape(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    return [layout.reshaped(_whole(layout, eqn, values), tuple(eqn.outvars[0].aval.shape))]


def _transpose(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    permutation = eqn.params["permutation"]
    value = values[0]
    if isinstance(value, Constant):
        return [Constant(value.array.transpose(permutation))]
    found = layout.tensor(value)
    found = layout.natural(found) if found.missing else found
    order = tuple(permutation.index(axis) for axis in found.order)
    return [found._replace(shape=tuple(found.shape[axis] for axis in permutation), order=order)]


def _broadcast(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    """Only new axes of size 1 are made: operators stretch them."""
    places, value = eqn.params["broadcast_dimensions"], values[0]
    rank = len(eqn.params["shape"])
    shape: list[Any] = [1] * rank
    for place, size in zip(places, shape_of(value), strict=True):
        shape[place] = size
    if isinstance(value, Constant):
        return [Constant(value.array.reshape(shape))]
    found = layout.tensor(value)
    if found.order == natural(len(found.shape)) and tuple(places) == natural(rank)[rank - len(places) :]:
        missing = found.missing + rank - len(places)
        return [found._replace(shape=tuple(shape), order=natural(rank), missing=missing)]
    return [layout.reshaped(found, tuple(shape))]


def _slice(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * len(starts)
    return [_cut(layout, layout.tensor(_whole(layout, eqn, values)), Window(starts, limits, strides))]


class Window(NamedTuple):
    """What is cut out, by axis."""

    starts: Sequence[int]
    limits: Sequence[Any]
    strides: Sequence[int]


def _cut(layout: Layout, value: Tensor, window: Window) -> Tensor:
    starts, limits, strides = window
    value = layout.natural(value) if value.missing else value
    cut = [
        axis
        for axis, size in enumerate(value.shape)
        if not (starts[axis] == 0 and limits[axis] == size and strides[axis] == 1)
    ]
    if not cut:
        return value
    where = [value.order.index(axis) for axis in cut]
    numbers = ([bounds[axis] for axis in cut] for bounds in (starts, limits))
    given = [layout.graph.constant(np.array(each, np.int64)) for each in (*numbers, where)]
    steps = layout.graph.constant(np.array([strides[axis] for axis in cut], np.int64))
    shape = list(value.shape)
    for axis in cut:
        shape[axis] = -(-(limits[axis] - starts[axis]) // strides[axis])
    return value._replace(name=layout.graph.node("Slice", value.name, *given, steps), shape=tuple(shape))


def _dynamic_slice(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    starts = [int(value.array) for value in values[1:] if isinstance(value, Constant)]
    sizes = eqn.params["slice_sizes"]
    if len(starts) != len(sizes):
        raise UserError("the network slices at places that it computes, which the ONNX writer does not know")
    limits = [start + size for start, size in zip(starts, sizes, strict=True)]
    return [
        _cut(layout, layout.tensor(_whole(layout, eqn, values)), Window(starts, limits, [1] * len(sizes)))
    ]


def _split(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    sizes, axis = eqn.params["sizes"], eqn.params["axis"]
    value = layout.tensor(_whole(layout, eqn, values))
    value = layout.natural(value) if value.missing else value
    given = [value.name, layout.graph.constant(np.array(sizes, np.int64))]
    names = layout.graph.node_of_many("Split", given, len(sizes), axis=value.order.index(axis))
    shapes = [(*value.shape[:axis], size, *value.shape[axis + 1 :]) for size in sizes]
    return [value._replace(name=name, shape=shape) for name, shape in zip(names, shapes, strict=True)]


def _concatenate(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    axis, wholes = eqn.params["dimension"], [_whole(layout, eqn, values, i) for i in range(len(values))]
    sites = {value.site if isinstance(value, Tensor) else "" for value in wholes}
    site = sites.pop() if len(sites) == 1 else ""
    wholes = wholes if site else [layout.values(value) for value in wholes]
    order = next(
        (v.order for v in wholes if isinstance(v, Tensor) and not v.missing),
        natural(len(shape_of(wholes[0]))),
    )
    names = [layout.tensor(value, order).name for value in wholes]
    name = layout.graph.node("Concat", *names, axis=order.index(axis))
    return [Tensor(name, tuple(eqn.outvars[0].aval.shape), order, site=site)]


def _pad(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    config, fill = eqn.params["padding_config"], values[1]
    if any(low < 0 or high < 0 or inner for low, high, inner in config) or not isinstance(fill, Constant):
        raise UserError("the network pads between numbers or by less than none, which ONNX cannot")
    value = layout.tensor(layout.values(_whole(layout, eqn, values)))
    value = layout.natural(value) if value.missing else value
    pads = [[config[axis][end] for axis in value.order] for end in (0, 1)]
    given = layout.graph.constant(np.array(pads, np.int64).ravel()), layout.graph.constant(fill.array)
    name = layout.graph.node("Pad", value.name, *given, mode="constant")
    return [Tensor(name, tuple(eqn.outvars[0].aval.shape), value.order)]


def _gather(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
    """Windows at known places, and rows by known indices along one axis or several neighbouring ones."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    index, value = values[1], layout.tensor(_whole(layout, eqn, values))
    if not isinstance(index, Constant) or numbers.operand_batching_dims:
        raise UserError(COMPUTED)
    places = dict(zip(numbers.start_index_map, np.moveaxis(index.array, -1, 0), strict=True))
    rows = {axis: at for axis, at in places.items() if axis in numbers.collapsed_slice_dims and at.ndim}
    starts, limits = [0] * len(sizes), list(value.shape)
    for axis in places.keys() - rows.keys():
        starts[axis] = int(places[axis].flat[0])
        limits[axis] = starts[axis] + sizes[axis]
        if (places[axis] != starts[axis]).any():
            raise UserError(COMPUTED)
    value = _cut(layout, value, Window(starts, limits, [1] * len(sizes)))
    if not rows:
        return [layout.reshaped(value, tuple(eqn.outvars[0].aval.shape))]
    if [*rows] != [*range(min(rows), min(rows) + len(rows))]:
        raise UserError(COMPUTED)
    return [_rows(layout, eqn, value, rows)]


def _rows(layout: Layout, eqn: Any, value: Tensor, rows: dict[int, np.ndarray]) -> Tensor:
    """Rows by the indices of each of these axes, which are neighbours."""
    shape, first, last = value.shape, min(rows), max(rows)
    lengths = [int(shape[axis]) for axis in rows]
    flat = np.ravel_multi_index([at.astype(np.int64) for at in rows.values()], lengths)  # type: ignore[arg-type]
    merged = (*shape[:first], int(np.prod(lengths)), *shape[last + 1 :])
    found = layout.natural(layout.reshaped(value, merged))
    name = layout.graph.node("Gather", found.name, layout.graph.constant(np.asarray(flat)), axis=first)
    # In the graph: the axes before those of the rows, the axes of the index, the axes after.
    out, offsets = tuple(eqn.outvars[0].aval.shape), list(eqn.params["dimension_numbers"].offset_dims)
    of_index = [axis for axis in range(len(out)) if axis not in offsets]
    order = (*offsets[:first], *of_index, *offsets[first:])
    return Tensor(name, out, order, site=found.site)


def _reduce(op: str) -> Handler:
    def write(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
        axes, value = eqn.params["axes"], layout.tensor(layout.values(_whole(layout, eqn, values)))
        value = layout.natural(value) if value.missing else value
        where = layout.graph.constant(np.array(sorted(value.order.index(axis) for axis in axes), np.int64))
        name = layout.graph.node(op, value.name, where, keepdims=0)
        kept = [axis for axis in range(len(value.shape)) if axis not in axes]
        order = tuple(kept.index(axis) for axis in value.order if axis in kept)
        return [Tensor(name, tuple(value.shape[axis] for axis in kept), order)]

    return write


def _pool(op: str) -> Handler:
    def write(layout: Layout, eqn: Any, values: list[Value]) -> list[Value]:
        window, strides = eqn.params["window_dimensions"], eqn.params["window_strides"]
        padding = eqn.params["padding"]
        spatial = tuple(axis for axis, size in enumerate(window) if size > 1) or (1, 2)
        others = tuple(axis for axis in range(len(window)) if axis not in spatial)
        if len(others) != 2 or any(strides[axis] != 1 for axis in others):
            raise UserError("the network pools over images or channels, which ONNX cannot")
        given = _whole(layout, eqn, values)
        given = given if op == "MaxPool" else layout.values(given)
        value = layout.tensor(given, (*others, *spatial))
        attributes: dict[str, Any] = {
            "kernel_shape": [window[axis] for axis in spatial],
            "strides": [strides[axis] for axis in spatial],
            "pads": [padding[axis][end] for end in (0, 1) for axis in spatial],
        }
        if op == "AveragePool":
            attributes["count_include_pad"] = 1
        name = layout.graph.node(op, value.name, **attributes)
        found = value._replace(name=name, shape=tuple(eqn.outvars[0].aval.shape))
        if op == "MaxPool":
            return [found]
        count = Constant(np.asarray(np.prod(attributes["kernel_shape"]), np.float32))
        return [operate(layout, "Mul", found, count)]

    return write


SHAPES: dict[str, Handler] = {
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "split": _split,
    "concatenate": _concatenate,
    "pad": _pad,
    "gather": _gather,
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _pool("AveragePool"),
}
