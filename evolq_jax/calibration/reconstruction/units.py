"""The units that are reconstructed: a network cut where activations are handed on.

What leads into a segment (where anything does), every block, and the head are units. They are run, read and
written through the same few functions, so that nothing depends on a network's family.
"""

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
from evolq_jax.typing import Array, Params, Site


class Unit(NamedTuple):
    """Static: all blocks of a segment are one `Unit`, told apart by a traced index."""

    kind: Literal["enter", "block", "head"]
    segment: int = 0  # number; of no meaning for the head


class Reads(NamedTuple):
    """What a unit takes from its scope: names of parameters, and of sites in the order of its calls."""

    params: frozenset[str]
    sites: tuple[str, ...]


def list_units(parts: ModelParts) -> list[tuple[Unit, int]]:
    """Units and block indices (0 outside blocks) in the order of the forward pass."""
    found: list[tuple[Unit, int]] = []
    for number, segment in enumerate(parts.segments):
        found += [(Unit("enter", number), 0)] if segment.enter is not unchanged else []
        found += [(Unit("block", number), index) for index in range(segment.length)]
    return [*found, (Unit("head"), 0)]


def scope_name(parts: ModelParts, unit: Unit) -> str:
    """The segment's name for a block, "" for what is outside the blocks."""
    return parts.segments[unit.segment].name if unit.kind == "block" else ""


def run_unit(parts: ModelParts, unit: Unit, params: Params, site: Site, x: Array) -> Array:
    """The unit's output; `params` and the site are of its scope."""
    if unit.kind == "head":
        return parts.head(params, site, x)
    segment = parts.segments[unit.segment]
    return (segment.block if unit.kind == "block" else segment.enter)(params, site, x)


def unit_params(parts: ModelParts, unit: Unit, params: Params, index: Array | int) -> Params:
    """The parameters of the unit's scope, of one block where it is one."""
    name = scope_name(parts, unit)
    return at(params[name], index) if name else _outside(parts, params)


def unit_qparams(parts: ModelParts, unit: Unit, qparams: QParams, index: Array | int) -> QParams:
    """The same of the scales, by local name."""
    name = scope_name(parts, unit)
    return at(scope(qparams, name), index) if name else _outside(parts, qparams)


def unit_specs(parts: ModelParts, unit: Unit, specs: Specs) -> Specs:
    """The same of the quantizers."""
    name = scope_name(parts, unit)
    return tuple((scope(specs, name) if name else _outside(parts, dict(specs))).items())


def write_back(
    parts: ModelParts,
    unit: Unit,
    state: State,
    leaves: dict[str, Array],
    qparams: QParams,
    index: Array | int,
) -> State:
    """The state with parameters and scales of one unit (by local name) put in."""
    name = scope_name(parts, unit)
    prefix = name + "/" if name else ""

    def put(old: Any, new: Any) -> Any:
        return jax.tree.map(lambda a, b: a.at[index].set(b), old, new) if name else new

    all_leaves, all_qparams = flatten(state.params), dict(state.qparams)
    for local, leaf in leaves.items():
        all_leaves[prefix + local] = put(all_leaves[prefix + local], leaf)
    for local, site_qparams in qparams.items():
        all_qparams[prefix + local] = put(all_qparams[prefix + local], site_qparams)
    return state._replace(params=unflatten(all_leaves), qparams=all_qparams)


def reads(parts: ModelParts, unit: Unit, params: Params, x: jax.ShapeDtypeStruct) -> Reads:
    """What the unit reads of its scope's parameters and sites, its input being like `x`."""
    leaves = flatten(jax.eval_shape(lambda p: unit_params(parts, unit, p, 0), params))
    observer = _SiteNames()

    def run(leaves: dict[str, Array], x: Array) -> Array:
        return run_unit(parts, unit, unflatten(leaves), observer, x)

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
