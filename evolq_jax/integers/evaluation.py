"""Evaluates a marked forward pass with codes in place of their values.

Codes are moved as values would be, into loops over blocks and from one block to the next as well. A matrix
product or a convolution of two of them multiplies integers. Whatever else reads codes gets their values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

from evolq_jax.integers.carriers import Carrier, is_plain, product_of, summed_axes
from evolq_jax.integers.coded import Coded, moved, values_of
from evolq_jax.integers.marks import DECODE, read_mark
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import Array

PRODUCTS = ("dot_general", "conv_general_dilated")


@dataclass(frozen=True)
class Product:
    """A matrix product or a convolution of a forward pass.

    Attributes:
      left: the quantization points that its left operand is from. Empty: the operand is float.
      right: those of the right one, such as a weight.
      terms: how many products each of its sums has.
      why_float: why it does not multiply integers. Empty: it does.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    terms: int
    why_float: str


@dataclass(frozen=True)
class Evaluation:
    """How a forward pass is evaluated.

    Attributes:
      specs: how each site is quantized.
      carrier: the type of the integers.
      wide: the sites whose codes less their zero points may lie outside of int8.
      found: the products that were met, in their order.
    """

    specs: Mapping[str, QuantSpec]
    carrier: Carrier
    wide: frozenset[str]
    found: dict[Product, None] = field(default_factory=dict[Product, None])

    def __call__(self, run: Callable[..., Array], *given: Any) -> Array:
        """The result of `run(*given)`, by products of integers."""
        closed = jax.make_jaxpr(run)(*given)
        (result,) = self._run(closed, jax.tree.leaves(given))
        return values_of(result)

    def _run(self, closed: ClosedJaxpr, given: Sequence[Any]) -> list[Any]:
        """The results of a jaxpr, for arrays and codes."""
        jaxpr = closed.jaxpr
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *given], strict=True))

        def read(variable: Any) -> Any:
            return variable.val if isinstance(variable, Literal) else known[variable]

        for eqn in jaxpr.eqns:
            known.update(zip(eqn.outvars, self._step(eqn, [*map(read, eqn.invars)]), strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _step(self, eqn: Any, given: list[Any]) -> Sequence[Any]:
        """The results of one equation."""
        kind = eqn.primitive.name
        if kind == "jit":
            mark = read_mark(eqn.params["name"])
            if mark is not None and mark[0] == DECODE:
                return [self._decoded(eqn, mark[1], given)]
            return self._run(eqn.params["jaxpr"], given)
        if kind == "scan":
            return self._loop(eqn, given)
        if kind in PRODUCTS and not self._noted(eqn, given).why_float:
            wide = [not self.wide.isdisjoint(x.sites) for x in given]
            return [product_of(eqn, self.carrier, given, wide=wide)]
        if any(isinstance(x, Coded) for x in given) and (results := moved(eqn, given)) is not None:
            return results
        params = eqn.primitive.get_bind_params(eqn.params)
        found = eqn.primitive.bind(*map(values_of, given), **params)
        return found if eqn.primitive.multiple_results else [found]

    def _decoded(self, eqn: Any, site: str, given: list[Any]) -> Coded:
        """Codes that are not decoded yet; or values, where codes are no multiples of a scale."""
        scale, zero_point, _, codes = map(values_of, given)
        if self.specs[site].quantizer.equal_steps:
            return Coded(codes, scale, zero_point, (site,))
        return Coded(self._run(eqn.params["jaxpr"], given)[0], None, None, (site,))

    def _loop(self, eqn: Any, given: list[Any]) -> Sequence[Any]:
        """A `scan` over blocks."""
        params, first, stop = eqn.params, *_carried(eqn)
        fixed, stacked = ([*map(values_of, part)] for part in (given[:first], given[stop:]))

        def body(run: Evaluation, carry: list[Any], block: list[Any]) -> tuple[list[Any], list[Any]]:
            results = run._run(params["jaxpr"], [*fixed, *carry, *block])
            return results[: len(carry)], [*map(values_of, results[len(carry) :])]

        one = jax.eval_shape(lambda leaves: [leaf[0] for leaf in leaves], stacked)
        unnoted = partial(body, replace(self, found={}))
        after, _ = jax.eval_shape(unnoted, start := given[first:stop], one)
        coded = all(map(_can_follow, start, after))
        carry = [
            x.replace(sites=_joined(x, y)) if coded else values_of(x)
            for x, y in zip(start, after, strict=True)
        ]

        def checked(carry: list[Any], block: list[Any]) -> tuple[list[Any], list[Any]]:
            results, made = body(self, carry, block)
            if coded:
                return [y.replace(sites=x.sites) for x, y in zip(carry, results, strict=True)], made
            return [*map(values_of, results)], made

        kept = {name: params[name] for name in ("length", "reverse", "unroll")}
        carry, made = jax.lax.scan(checked, carry, stacked, **kept)
        return [*carry, *made]

    def _noted(self, eqn: Any, given: list[Any]) -> Product:
        """What a product is."""
        left, right = (x.sites if isinstance(x, Coded) else () for x in given)
        terms = prod(eqn.invars[1].aval.shape[axis] for axis in summed_axes(eqn, 1))
        product = Product(left, right, terms, self._why_float(eqn, given))
        self.found[product] = None
        return product

    def _why_float(self, eqn: Any, given: list[Any]) -> str:
        """Why a product does not multiply integers. Empty: it does."""
        if not is_plain(eqn):
            return "it is a convolution of another kind than those of integers here"
        coded = [x for x in given if isinstance(x, Coded)]
        if len(coded) < len(given):
            return "one operand is not quantized" if coded else "neither operand is quantized"
        for side, x in enumerate(given):
            if x.scale is None:
                return f"the quantizer of {_named(x)} has no equal steps"
            if any(x.scale.shape[axis] > 1 for axis in summed_axes(eqn, side)):
                return f"{_named(x)} has a factor for each of the channels that are summed"
        return ""


def _carried(eqn: Any) -> tuple[int, int]:
    """Where the operands that a `scan` carries begin and end. Before are fixed ones, behind stacked ones.

    What its parameters are called differs between versions of JAX.
    """
    inner = eqn.params["jaxpr"].jaxpr
    stacked, made = (
        sum(one.aval.ndim != other.aval.ndim for one, other in zip(outer, own, strict=True))
        for outer, own in ((eqn.invars, inner.invars), (eqn.outvars, inner.outvars))
    )
    stop = len(eqn.invars) - stacked
    return stop - (len(eqn.outvars) - made), stop


def _can_follow(one: Any, other: Any) -> bool:
    """Whether the codes that a block gives can take the place of those that it got."""
    if not (isinstance(one, Coded) and isinstance(other, Coded)) or one.scale is None or other.scale is None:
        return False
    return one.codes.dtype == other.codes.dtype and one.scale.shape == other.scale.shape


def _joined(one: Coded, other: Coded) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.sites + other.sites))


def _named(x: Coded) -> str:
    return " or ".join(f"'{site}'" for site in x.sites)
