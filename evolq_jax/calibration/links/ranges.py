"""The first link of every chain: scales from observers on the float network (FQ-ViT's calibration)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from evolq_jax.calibration import fisher
from evolq_jax.calibration.arrival import KEPT_BYTES
from evolq_jax.calibration.link import Calibration, NetworkLink, NotAfter, State, whole
from evolq_jax.calibration.weight_ranges import weight_ranges
from evolq_jax.devices.mesh import DATA, num_shares, spread
from evolq_jax.network.chunks import image_chunks, largest_divisor
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.sites import is_stacked, list_sites, observe, observe_chunks
from evolq_jax.quant.observers.of_quantizer import observer_of
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.quantizers.base import Range
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.typing import Array, Params


@dataclass(frozen=True)
class RangesConfig:
    """Settings of `ranges`.

    Attributes:
      fisher: whether observers that compare candidates weigh squared errors by `fisher.importance`.
    """

    fisher: bool = False


class Own(NamedTuple):
    """What a site's candidates are made of."""

    bits: Array
    bounds: Range


@dataclass(frozen=True)
class Sweep:
    """How a batch of images is run through the float network. Static.

    Attributes:
      parts: the network's functions.
      specs: of the sites that are observed.
      chunk: images at once, on each device.
      mesh: the devices that images are spread over; None: one device.
      fisher: whether errors are weighed by `fisher.importance`.
      grid: which grid of candidates is compared.
    """

    parts: ModelParts
    specs: Specs
    chunk: int
    mesh: Mesh | None
    fisher: bool = False
    grid: int = 0

    def each(
        self, fn: Callable[[str, QuantSpec], Callable[..., Any]], *trees: dict[str, Any]
    ) -> dict[str, Any]:
        """`fn(name, spec)` of the entries of every site, over the leading L axis of stacked sites."""
        return {
            name: _per_block(self.parts, name, fn(name, spec))(*(tree.get(name) for tree in trees))
            for name, spec in self.specs
        }


def ranges(calibration: Calibration, state: State, settings: RangesConfig) -> State:
    """Finds scales by each site's observer, on the float network (the released code's calibration).

    The bits are those of `state.qparams`. They are traced: other bits need no other program.
    """
    sites, params = calibration.sites, state.params
    scaled = [(name, spec) for name, spec in calibration.specs if spec.has_scale]
    activations = tuple((name, spec) for name, spec in scaled if not sites[name].is_weight)
    weights = tuple((name, spec) for name, spec in scaled if sites[name].is_weight)
    bits = {name: state.qparams[name].bits for name, _ in scaled}
    importance = _importance(calibration, weights if settings.fisher else (), params)
    qparams = state.qparams | weight_ranges(calibration.parts, weights, bits, params, importance=importance)
    if not activations:
        return state._replace(qparams=qparams)

    sweep = Sweep(calibration.parts, activations, calibration.chunk, calibration.mesh, settings.fisher)
    at_once, last = _fits(sweep, params, calibration.batches[-1]), calibration.batches[-1]
    steps = len(calibration.batches) + (not at_once)  # runs of the network
    found = list[dict[str, Range]]()
    for images in calibration.batches[:-1] if at_once else calibration.batches:
        found.append(_batch_ranges(sweep, params, images))
        calibration.progress(len(found), steps)
    qparams |= (_in_one_run if at_once else _in_steps)(sweep, params, bits, found, images=last)
    jax.block_until_ready(qparams)
    calibration.progress(steps, steps)
    return state._replace(qparams=qparams)


def _fits(sweep: Sweep, params: Params, images: Array) -> bool:
    """Whether what a batch makes inside any block can be held, so that ranges and errors need one run.

    Gradients that weigh errors need a chunk to pass the whole network. They are found in steps.
    """
    if sweep.fisher:
        return False
    sites, share = list_sites(sweep.parts, params, images.shape[1:]), len(images) // num_shares(sweep.mesh)
    sums: dict[str, int] = {}
    for name, spec in sweep.specs:
        if observer_of(spec).num_grids:
            segment = name.split("/")[0]
            sums[segment] = sums.get(segment, 0) + 4 * share * math.prod(sites[name].shape)
    return max(sums.values(), default=0) <= KEPT_BYTES


def _in_steps(
    sweep: Sweep, params: Params, bits: dict[str, Array], found: list[dict[str, Range]], *, images: Array
) -> QParams:
    """The numbers of every site, from all batches' ranges. The last batch runs again for each grid."""
    bounds = _combine(sweep, found)
    qparams: QParams = {}
    errors: dict[str, Array] = {}
    for grid in range(max(1, *(observer_of(spec).num_grids for _, spec in sweep.specs))):
        compared = tuple((name, spec) for name, spec in sweep.specs if observer_of(spec).num_grids > grid)
        at = replace(sweep, specs=compared, grid=grid)
        if grid:
            bounds = _narrowed(at, bounds, errors)
        if compared:
            own = {name: Own(bits[name], bounds[name]) for name, _ in compared}
            errors = _errors(at, params, own, images)
        own_sweep = at if grid else sweep  # the first time also the sites whose range is all
        qparams |= _found(own_sweep, bits, bounds, errors)
    return qparams


def _importance(calibration: Calibration, weights: Specs, params: Params) -> dict[str, Array]:
    """The importance of the weights whose observers compare errors."""
    names = tuple(name for name, spec in weights if observer_of(spec).num_grids)
    if not names:
        return {}
    # Sums of a chunk's gradients are squared, so on several devices each takes all of every chunk.
    images = jnp.concatenate(list(whole(calibration).batches))
    chunks = image_chunks(images, calibration.chunk)
    return fisher.weight_importance(calibration.parts, names, params, chunks, key=jax.random.key(0))


def _per_block(parts: ModelParts, name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, over the leading L axis if the site is stacked."""
    return jax.vmap(fn) if is_stacked(parts, name) else fn


@partial(jax.jit, static_argnames=("sweep",))
def _batch_ranges(sweep: Sweep, params: Params, images: Array) -> dict[str, Range]:
    parts, mesh, table = sweep.parts, sweep.mesh, dict(sweep.specs)
    size = largest_divisor(images.shape[0] // num_shares(mesh), sweep.chunk)
    shapes, chunk_shapes = (
        {name: info.shape for name, info in list_sites(parts, params, images.shape[1:], size).items()}
        for size in (images.shape[0], size)
    )

    def one_chunk(params: Params, x: Array) -> dict[str, Range]:
        def chunk_range(name: str, x: Array, _: None) -> Range:
            return observer_of(table[name]).chunk_range(table[name], shapes[name], x)

        return observe(parts, chunk_range, params, x, stats=dict.fromkeys(table))

    def merge(name: str, leaf: Array) -> Array:
        """[chunks, (L,) n, ...] -> [(L,) chunks * n, ...]."""
        lead = int(is_stacked(parts, name))
        if shapes[name] == chunk_shapes[name]:
            leaf = leaf[:1]  # a position table is the same in every chunk, and counts once
        leaf = jnp.moveaxis(leaf, 0, lead)
        return leaf.reshape(*leaf.shape[:lead], -1, *leaf.shape[lead + 2 :])

    def on_device(params: Params, images: Array) -> dict[str, Range]:
        chunks = images.reshape(-1, size, *images.shape[1:])
        found = jax.lax.map(partial(one_chunk, params), chunks)
        return found if mesh is None else jax.lax.all_gather(found, DATA, tiled=True)

    found = spread(mesh, on_device, (P(), P(DATA)), P())(params, images)
    merged = {name: tuple(merge(name, leaf) for leaf in ends) for name, ends in found.items()}
    return sweep.each(lambda name, spec: partial(observer_of(spec).batch_range, spec, shapes[name]), merged)


@partial(jax.jit, static_argnames=("sweep",))
def _in_one_run(
    sweep: Sweep, params: Params, bits: dict[str, Array], before: list[dict[str, Range]], *, images: Array
) -> QParams:
    """The same in one run of the last batch, from the ranges of the batches before.

    A block's ranges and the errors of candidates come from activations that are held.
    """
    parts, mesh, table = sweep.parts, sweep.mesh, dict(sweep.specs)
    size = largest_divisor(images.shape[0] // num_shares(mesh), sweep.chunk)
    sites = list_sites(parts, params, images.shape[1:], images.shape[0])

    def chunk_range(name: str, x: Array) -> Range:
        return observer_of(table[name]).chunk_range(table[name], sites[name].shape, x)

    def of_site(name: str, x: Array, found: Range, entry: tuple[Array, tuple[Range, ...]]) -> SiteQParams:
        bits, before = entry
        spec = table[name]
        observer = observer_of(spec)
        found = found if mesh is None else jax.lax.all_gather(found, DATA, tiled=True)
        # A position table is the same in every chunk, and counts once.
        ends = (end[:1] if x.shape[1:] == sites[name].shape else end for end in found)
        low, high = (end.reshape(-1, *end.shape[2:]) for end in ends)
        ranges = (*before, observer.batch_range(spec, sites[name].shape, (low, high)))
        bounds, errors = observer.combine_ranges(jax.tree.map(lambda *ends: jnp.stack(ends), *ranges)), None
        for grid in range(observer.num_grids):
            bounds = bounds if errors is None else observer.narrow(spec, bounds, errors)
            compare = partial(observer.chunk_errors, spec, bits, bounds, grid=grid)
            errors = jax.lax.map(compare, x).sum(0)
            errors = errors if mesh is None else jax.lax.psum(errors, DATA)
        return observer.qparams(spec, bits, bounds, errors=errors, grid=max(0, observer.num_grids - 1))

    def on_device(params: Params, stats: dict[str, Any], images: Array) -> QParams:
        chunks = images.reshape(-1, size, *images.shape[1:])
        return observe_chunks(parts, of_site, params, chunks, chunk_fn=chunk_range, stats=stats)

    stats = {name: (bits[name], tuple(batch[name] for batch in before)) for name in table}
    return spread(mesh, on_device, (P(), P(), P(DATA)), P())(params, stats, images)


@partial(jax.jit, static_argnames=("sweep",))
def _errors(sweep: Sweep, params: Params, own: dict[str, Own], images: Array) -> dict[str, Array]:
    """Errors of every site's candidates on all images."""
    parts, mesh, table = sweep.parts, sweep.mesh, dict(sweep.specs)
    size = largest_divisor(images.shape[0] // num_shares(mesh), sweep.chunk)

    def chunk_errors(name: str, x: Array, entry: tuple[Own, Array | None]) -> Array:
        own, gradient = entry
        spec = table[name]
        weight = None if gradient is None else fisher.importance(gradient, size)
        return observer_of(spec).chunk_errors(
            spec, own.bits, own.bounds, x, importance=weight, grid=sweep.grid
        )

    def on_device(params: Params, own: dict[str, Own], images: Array, keys: Array) -> dict[str, Array]:
        def one_chunk(args: tuple[Array, Array]) -> dict[str, Array]:
            images, keys = args
            names = tuple(table)
            gradients = fisher.site_gradients(parts, names, params, images, keys=keys) if sweep.fisher else {}
            entries = {name: (own[name], gradients.get(name)) for name in table}
            return observe(parts, chunk_errors, params, images, stats=entries)

        chunks = (leaf.reshape(-1, size, *leaf.shape[1:]) for leaf in (images, keys))
        totals = jax.lax.map(one_chunk, tuple(chunks))
        totals = jax.tree.map(lambda leaf: leaf.sum(0), totals)
        return totals if mesh is None else jax.lax.psum(totals, DATA)

    keys = jax.random.split(jax.random.key(0), images.shape[0])
    return spread(mesh, on_device, (P(), P(), P(DATA), P(DATA)), P())(params, own, images, keys)


@partial(jax.jit, static_argnames=("sweep",))
def _narrowed(sweep: Sweep, bounds: dict[str, Range], errors: dict[str, Array]) -> dict[str, Range]:
    return sweep.each(lambda _, spec: partial(observer_of(spec).narrow, spec), bounds, errors)


@partial(jax.jit, static_argnames=("sweep",))
def _combine(sweep: Sweep, per_batch: list[dict[str, Range]]) -> dict[str, Range]:
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *per_batch)
    return {name: observer_of(spec).combine_ranges(stacked[name]) for name, spec in sweep.specs}


@partial(jax.jit, static_argnames=("sweep",))
def _found(
    sweep: Sweep, bits: dict[str, Array], bounds: dict[str, Range], errors: dict[str, Array]
) -> QParams:
    def of(name: str, spec: QuantSpec) -> Callable[[Array, Range, Array | None], SiteQParams]:
        observer = observer_of(spec)
        return lambda bits, bounds, errors: observer.qparams(
            spec, bits, bounds, errors=errors, grid=sweep.grid
        )

    return sweep.each(of, bits, bounds, errors)


RANGES = NetworkLink(
    "ranges",
    "finds the scales and zero points of every site by its observer, on the float network",
    ranges,
    settings=RangesConfig(),
    first=True,
    not_after=NotAfter(lambda earlier: True, "finds all ranges anew, which would undo what came before"),
    shares_images=True,
)
