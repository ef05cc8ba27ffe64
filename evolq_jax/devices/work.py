"""What programs do and hold, counted from their trace. Nothing is compiled, and no array is made."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

# Operations that XLA fuses with none that reads their result. All others are part of their only reader.
_ALONE = frozenset(
    [
        "dot_general",
        "conv_general_dilated",
        "reduce_sum",
        "reduce_max",
        "reduce_min",
        "reduce_and",
        "reduce_or",
        "argmin",
        "argmax",
        "cholesky",
        "triangular_solve",
        "lu",
        "sort",
        "gather",
        "scatter",
        "scatter-add",
        "dynamic_update_slice",
        "cumsum",
        "concatenate",
        "pad",
        "while",
        "scan",
        "cond",
        "random_bits",
        "threefry2x32",
    ]
)
_CALLS = frozenset(
    ["pjit", "jit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint"]
)
# Operations that only say where values lie. They are part of all their readers.
_VIEWS = frozenset(
    [
        "broadcast_in_dim",
        "iota",
        "convert_element_type",
        "reshape",
        "squeeze",
        "expand_dims",
        "slice",
        "dynamic_slice",
        "transpose",
        "rev",
        "split",
        "copy",
        "stop_gradient",
        "bitcast_convert_type",
    ]
)


class Work(NamedTuple):
    """What programs do, what they hold, and how large they are.

    Attributes:
      products: floating-point operations of matrix products, convolutions and solutions.
      elements: numbers that all other operations give.
      held: bytes held at once beside what the programs are given; results count.
      programs: of each that is compiled, the operations that no other one takes in. One that runs again
        counts once. Operations between programs are programs of size 0.
    """

    products: float = 0.0
    elements: float = 0.0
    held: int = 0
    programs: tuple[int, ...] = ()


def count_work(run: Callable[..., Any], *args: Any) -> Work:
    """The work of a function that calls programs (jitted functions), and of operations between them.

    A loop without a known number of steps counts as one step, and a branch as the one with the most work.

    Args:
      run: the function.
      args: trees of arrays, or of their shapes (`jax.ShapeDtypeStruct`).
    """
    jaxpr = jax.make_jaxpr(run)(*args).jaxpr
    counter = _Counter()
    products, elements = counter.operations(jaxpr)
    programs: dict[Any, int] = {}
    for equation in jaxpr.eqns:
        inner = [*_inner(equation)]
        if inner:
            programs[id(inner[0])] = max(1, counter.kernels(inner[0]))
        else:
            programs[_signature(equation)] = 0
    return Work(products, elements, counter.held(jaxpr), tuple(programs.values()))


class _Counter:
    """Counts of jaxprs, each made once: blocks of a segment share their programs."""

    def __init__(self) -> None:
        self._operations: dict[int, np.ndarray] = {}
        self._held: dict[int, int] = {}

    def operations(self, jaxpr: Jaxpr) -> tuple[float, float]:
        """Operations of products, and elements."""
        products, elements = self._counted(jaxpr)
        return float(products), float(elements)

    def _counted(self, jaxpr: Jaxpr) -> np.ndarray:
        if id(jaxpr) not in self._operations:
            zero = np.zeros(2)
            self._operations[id(jaxpr)] = sum((self._of(equation) for equation in jaxpr.eqns), zero)
        return self._operations[id(jaxpr)]

    def _of(self, equation: Any) -> np.ndarray:
        inner = [self._counted(each) for each in _inner(equation)]
        if equation.primitive.name == "cond":
            return np.max(inner, axis=0)
        if inner:
            return equation.params.get("length", 1) * np.sum(inner, axis=0)
        if not equation.outvars:
            return np.zeros(2)
        products = _products(equation)
        if products or equation.primitive.name in _VIEWS:
            return np.asarray([products, 0.0])
        sizes = [math.prod(each.aval.shape) for each in (*equation.invars, *equation.outvars)]
        reads_all = equation.primitive.name.startswith(("reduce", "arg", "cum", "sort"))
        return np.asarray([0.0, max(sizes) if reads_all else sizes[-1]])

    def kernels(self, jaxpr: Jaxpr) -> int:
        """Operations that are compiled on their own. What is called twice is compiled twice."""
        uses = _uses(jaxpr)
        return sum(
            sum(map(self.kernels, inner)) + (name not in _CALLS)
            if (inner := [*_inner(equation)])
            else name in _ALONE or (name not in _VIEWS and any(uses[made] > 1 for made in equation.outvars))
            for equation in jaxpr.eqns
            for name in [equation.primitive.name]
        )

    def held(self, jaxpr: Jaxpr) -> int:
        """Bytes beside the inputs. An array is held from the operation that makes it to its last reader."""
        if id(jaxpr) in self._held:
            return self._held[id(jaxpr)]
        last, fused = _lifetimes(jaxpr)
        dying: dict[int, list[Any]] = {}
        for variable, number in last.items():
            dying.setdefault(number, []).append(variable)
        sizes: dict[Any, int] = {}
        now = most = 0
        for number, equation in enumerate(jaxpr.eqns):
            made = [each for each in equation.outvars if each in last and each not in fused]
            sizes |= {each: _num_bytes(each) for each in made}
            now += sum(sizes[each] for each in made)
            most = max(most, now + max(map(self._inside(equation), _inner(equation)), default=0))
            now -= sum(sizes.pop(each, 0) for each in dying.get(number, ()))
        self._held[id(jaxpr)] = most
        return most

    def _inside(self, equation: Any) -> Callable[[Jaxpr], int]:
        """Bytes that what the equation calls holds; the results of a call are the equation's own."""

        def held(inner: Jaxpr) -> int:
            results = sum(map(_num_bytes, inner.outvars)) if equation.primitive.name in _CALLS else 0
            return max(0, self.held(inner) - results)

        return held


def _lifetimes(jaxpr: Jaxpr) -> tuple[dict[Any, int], set[Any]]:
    """The number of each variable's last reader, and the variables that are never held: readers make them."""
    last, uses, fused = dict[Any, int](), _uses(jaxpr), set[Any]()
    end = len(jaxpr.eqns)
    last |= dict.fromkeys(_variables(jaxpr.outvars), end)
    for number in range(end - 1, -1, -1):
        equation = jaxpr.eqns[number]
        name, until = equation.primitive.name, number
        for made in equation.outvars[:1]:
            is_part = name in _VIEWS or (name not in _ALONE | _CALLS and uses[made] == 1)
            if is_part and last.get(made, end) < end:
                fused.add(made)
                until = last[made]
        for variable in _variables(equation.invars):
            last[variable] = max(last.get(variable, 0), until)
    return last, fused


def _uses(jaxpr: Jaxpr) -> Counter[Any]:
    reads = [*_variables(jaxpr.outvars)]
    for equation in jaxpr.eqns:
        reads += _variables(equation.invars)
    return Counter(reads)


def _variables(atoms: Any) -> Iterator[Any]:
    return (atom for atom in atoms if not isinstance(atom, Literal))


def _inner(equation: Any) -> Iterator[Jaxpr]:
    """The jaxprs that an equation runs; of a loop with a condition the body alone."""
    for name, value in equation.params.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            if name != "cond_jaxpr" and isinstance(each, ClosedJaxpr | Jaxpr):
                yield each.jaxpr if isinstance(each, ClosedJaxpr) else each


def _products(equation: Any) -> float:
    """Floating-point operations of a matrix product, a convolution or a solution; else 0."""
    first, made = (
        equation.invars[0].aval if equation.invars else equation.outvars[0].aval,
        equation.outvars[0].aval,
    )
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            return 2.0 * math.prod(first.shape[axis] for axis in contracted) * math.prod(made.shape)
        case "conv_general_dilated":
            kernel, outputs = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec[0]
            return 2.0 * math.prod(made.shape) * math.prod(kernel) / kernel[outputs]
        case "cholesky":
            return math.prod(made.shape) * made.shape[-1] / 3
        case "triangular_solve" | "lu":
            return float(math.prod(made.shape) * first.shape[-1])
        case _:
            return 0.0


def _num_bytes(variable: Any) -> int:
    shape, dtype = getattr(variable.aval, "shape", ()), getattr(variable.aval, "dtype", None)
    if dtype is None or jnp.issubdtype(dtype, jax.dtypes.extended):
        return 0
    return math.prod(shape) * np.dtype(dtype).itemsize


def _signature(equation: Any) -> str:
    """Equal for operations that share a program."""
    shapes = [str(each.aval) for each in (*equation.invars, *equation.outvars)]
    return f"{equation.primitive.name} {shapes}"
