"""Walks the equations of a traced network and writes an operator for each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.integers.onnx.elementwise import ELEMENTWISE
from evolq_jax.integers.onnx.layout import Layout
from evolq_jax.integers.onnx.marked import Marks
from evolq_jax.integers.onnx.named import NAMED
from evolq_jax.integers.onnx.products import PRODUCTS
from evolq_jax.integers.onnx.shapes import SHAPES
from evolq_jax.integers.onnx.values import Constant, Tensor, Value, joint_shape

HANDLERS = ELEMENTWISE | PRODUCTS | SHAPES
INNER = ("jaxpr", "call_jaxpr")  # parameters of equations that call others


@dataclass
class Translation:
    """Translates equations.

    Attributes:
      layout: where values go.
      marks: what becomes of marked equations.
    """

    layout: Layout
    marks: Marks

    def run(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
        """The values of a jaxpr's outputs."""
        known = dict(zip(jaxpr.constvars, (Constant(np.asarray(c)) for c in consts), strict=True))
        known |= dict(zip(jaxpr.invars, inputs, strict=True))
        read_by = [*(atom for eqn in jaxpr.eqns for atom in eqn.invars), *jaxpr.outvars]
        uses = Counter(atom for atom in read_by if not _is_literal(atom))
        self._note_shared(known, uses)

        def read(atom: Any) -> Value:
            return Constant(np.asarray(atom.val)) if _is_literal(atom) else known[atom]

        for eqn in jaxpr.eqns:
            results = self._equation(eqn, [read(atom) for atom in eqn.invars])
            made = dict(zip(eqn.outvars, results, strict=True))
            self._note_shared(made, uses)
            known |= made
        return [read(atom) for atom in jaxpr.outvars]

    def _note_shared(self, values: Mapping[Any, Value], uses: Counter[Any]) -> None:
        """Notes what several equations read."""
        found = (value for variable, value in values.items() if uses[variable] > 1)
        self.layout.shared.update(value.name for value in found if isinstance(value, Tensor))

    def _equation(self, eqn: Any, values: list[Value]) -> Sequence[Value]:
        primitive = eqn.primitive.name
        inner = next((eqn.params[key] for key in INNER if key in eqn.params), None)
        if inner is not None:
            return self._call(eqn, inner, values)
        if all(isinstance(value, Constant) for value in values):
            folded = _folded(eqn, [value.array for value in values if isinstance(value, Constant)])
            if folded is not None:
                return folded
        if primitive not in HANDLERS:
            raise UserError(
                f"the network uses '{primitive}', which the ONNX writer does not know: export it as "
                "stablehlo, which takes every network"
            )
        return HANDLERS[primitive](self.layout, eqn, values)

    def _call(self, eqn: Any, inner: Any, values: list[Value]) -> Sequence[Value]:
        """A marked equation, a function that ONNX has by name, or what the function does."""
        name = str(eqn.params.get("name", ""))
        jaxpr, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
        marked = self.marks.write(name, self.layout, values, lambda given: self.run(jaxpr, consts, given))
        if marked is not None:
            return [marked]
        found = NAMED[name](self.layout, jaxpr, values) if name in NAMED else None
        return self.run(jaxpr, consts, values) if found is None else [found]


def _is_literal(atom: Any) -> bool:
    return hasattr(atom, "val")


def _folded(eqn: Any, arrays: list[np.ndarray]) -> list[Value] | None:
    """What an equation of known numbers gives; None: it is about the batch."""
    if eqn.primitive.name == "broadcast_in_dim" or not _is_static(eqn):
        return None
    if eqn.primitive.name in ELEMENTWISE:
        shape = joint_shape(*(array.shape for array in arrays))
        arrays = [np.broadcast_to(array, shape) for array in arrays]
    else:
        wanted = [tuple(atom.aval.shape) for atom in eqn.invars]
        arrays = [np.broadcast_to(array, shape) for array, shape in zip(arrays, wanted, strict=True)]
    with jax.ensure_compile_time_eval():
        found = eqn.primitive.bind(*map(jax.numpy.asarray, arrays), **eqn.params)
    several = found if eqn.primitive.multiple_results else [found]
    return [Constant(np.asarray(each)) for each in several]


def _is_static(eqn: Any) -> bool:
    """Whether no size of what goes in or comes out depends on the batch."""
    atoms = [*eqn.invars, *eqn.outvars]
    fixed = all(isinstance(size, int) for atom in atoms for size in atom.aval.shape)
    return fixed or eqn.primitive.name in ELEMENTWISE
