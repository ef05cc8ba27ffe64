"""The first link of every chain: scales from observers on the float network (FQ-ViT's calibration)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from evolq_jax.calibration import fisher
from evolq_jax.calibration.link import Calibration, NetworkLink, NotAfter, State, whole
from evolq_jax.calibration.weight_ranges import weight_ranges
from evolq_jax.devices.mesh import DATA, num_shares, spread
from evolq_jax.network.chunks import image_chunks, largest_divisor
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.sites import is_stacked, list_sites, observe
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

    steps, per_batch = len(calibration.batches) + 1, []
    sweep = Sweep(calibration.parts, activations, calibration.chunk, calibration.mesh, settings.fisher)
    for done, images in enumerate(calibration.batches):
        per_batch.append(_batch_ranges(sweep, params, images))
        calibration.progress(done + 1, steps)
    bounds = _combine(sweep, per_batch)
    errors: dict[str, Array] = {}
    for grid in range(max(1, *(observer_of(spec).num_grids for _, spec in activations))):
        compared = tuple((name, spec) for name, spec in activations if observer_of(spec).num_grids > grid)
        at = replace(sweep, specs=compared, grid=grid)
        if grid:
            bounds = _narrowed(at, bounds, errors)
        if compared:
            own = {name: Own(bits[name], bounds[name]) for name, _ in compared}
            errors = _errors(at, params, own, calibration.batches[-1])
        found = at if grid else sweep  # the first time also the sites whose range is all
        qparams |= _found(found, bits, bounds, errors)
    jax.block_until_ready(qparams)
    calibration.progress(steps, steps)
    return state._replace(qparams=qparams)


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
