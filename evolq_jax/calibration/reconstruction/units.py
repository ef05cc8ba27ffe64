"""The units that are reconstructed. The network is cut where activations are handed on.

Units are: what leads into a segment (if anything does), every block, and the head. The same few functions
run, read and write all of them, so nothing depends on a network's family.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax

from evolq_jax.calibration.link import State
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.run import at, unchanged
from evolq_jax.network.sites import is_stacked
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import FloatSite
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params, Site, SiteInfo


class Unit(NamedTuple):
    """A unit (static). All blocks of a segment are one `Unit`; a traced index selects the block."""

    parts: ModelParts
    kind: Literal["enter", "block", "head"]
    segment: int = 0  # number; of no meaning for the head

    @property
    def scope(self) -> str:
        """The segment's name for a block; "" for a unit outside the blocks."""
        return self.parts.segments[self.segment].name if self.kind == "block" else ""


class Values(NamedTuple):
    """Parameters and quantizers' numbers of a unit's scope, by local name."""

    params: Params
    qparams: QParams


class Decided(NamedTuple):
    """Weights, flat, and quantizers' numbers of a unit, by local name."""

    weights: dict[str, Array]
    qparams: QParams


class Reads(NamedTuple):
    """What a unit takes from its scope: names of parameters, and of sites in the order of its calls."""

    params: frozenset[str]
    sites: tuple[str, ...]


def list_units(parts: ModelParts) -> list[tuple[Unit, int]]:
    """Units and block indices (0 outside blocks) in the order of the forward pass."""
    found: list[tuple[Unit, int]] = []
    for number, segment in enumerate(parts.segments):
        found += [(Unit(parts, "enter", number), 0)] if segment.enter is not unchanged else []
        found += [(Unit(parts, "block", number), index) for index in range(segment.length)]
    return [*found, (Unit(parts, "head"), 0)]


def run_unit(unit: Unit, params: Params, site: Site, x: Array) -> Array:
    """The unit's output. `params` and the site belong to its scope."""
    if unit.kind == "head":
        return unit.parts.head(params, site, x)
    segment = unit.parts.segments[unit.segment]
    return (segment.block if unit.kind == "block" else segment.enter)(params, site, x)


def unit_params(unit: Unit, params: Params, index: Array | int) -> Params:
    """The parameters of the unit's scope. For a block: those of the block."""
    return at(params[unit.scope], index) if unit.scope else _outside(unit.parts, params)


def unit_qparams(unit: Unit, qparams: QParams, index: Array | int) -> QParams:
    """The same of the quantizers' numbers, by local name."""
    return at(scope(qparams, unit.scope), index) if unit.scope else _outside(unit.parts, qparams)


def unit_specs(unit: Unit, specs: Specs) -> Specs:
    """The same of the quantizers."""
    return tuple((scope(specs, unit.scope) if unit.scope else _outside(unit.parts, dict(specs))).items())


def unit_sites(unit: Unit, sites: Mapping[str, SiteInfo]) -> dict[str, SiteInfo]:
    """The same of the quantization points."""
    return scope(sites, unit.scope) if unit.scope else _outside(unit.parts, dict(sites))


def write_back(unit: Unit, state: State, index: Array | int, found: Decided) -> State:
    """The state with the results of one unit."""
    prefix = unit.scope + "/" if unit.scope else ""

    def put(old: Any, new: Any) -> Any:
        return jax.tree.map(lambda a, b: a.at[index].set(b), old, new) if unit.scope else new

    leaves, qparams = flatten(state.params), dict(state.qparams)
    for local, leaf in found.weights.items():
        leaves[prefix + local] = put(leaves[prefix + local], leaf)
    for local, site_qparams in found.qparams.items():
        qparams[prefix + local] = put(qparams[prefix + local], site_qparams)
    return state._replace(params=unflatten(leaves), qparams=qparams)


def reads(unit: Unit, params: Params, x: jax.ShapeDtypeStruct) -> Reads:
    """The parameters and sites of its scope that the unit reads, for an input like `x`."""
    leaves = flatten(jax.eval_shape(lambda p: unit_params(unit, p, 0), params))
    observer = _SiteNames()

    def run(leaves: dict[str, Array], x: Array) -> Array:
        return run_unit(unit, unflatten(leaves), observer, x)

    jaxpr = jax.make_jaxpr(run)(leaves, x).jaxpr
    used = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    names = sorted(leaves)  # the order of a dict's leaves as arguments
    given = jaxpr.invars[: len(names)]
    read = (name for name, variable in zip(names, given, strict=True) if id(variable) in used)
    return Reads(frozenset(read), tuple(dict.fromkeys(observer.names)))


class _SiteNames(FloatSite):
    """Collects the names of the sites passed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str, x: Array) -> Array:
        self.names.append(name)
        return x


def _outside(parts: ModelParts, entries: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if not is_stacked(parts, name)}
