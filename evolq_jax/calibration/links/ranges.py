"""The first link of every chain: scales from observers on the float network (FQ-ViT's calibration)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from evolq_jax.calibration import fisher
from evolq_jax.calibration.link import Calibration, Cost, NetworkLink, NotAfter, State, whole
from evolq_jax.calibration.observers import uniform as observers
from evolq_jax.devices.mesh import DATA, num_shares, spread
from evolq_jax.network.chunks import image_chunks, largest_divisor
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.sites import is_stacked, list_sites, observe
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params


@dataclass(frozen=True)
class RangesConfig:
    """Settings of `ranges`.

    Attributes:
      fisher: whether observers that compare candidates weigh squared errors by `fisher.importance`.
    """

    fisher: bool = False


def ranges(calibration: Calibration, state: State, settings: RangesConfig) -> State:
    """Finds scales by each site's observer, on the float network (the released code's calibration).

    The bits are those of `state.qparams`. They are traced: other bits need no other program.
    """
    parts, sites, params = calibration.parts, calibration.sites, state.params
    scaled = [(name, spec) for name, spec in calibration.specs if spec.has_scale]
    activations = tuple((name, spec) for name, spec in scaled if not sites[name].is_weight)
    weights = tuple((name, spec) for name, spec in scaled if sites[name].is_weight)
    bits = {name: state.qparams[name].bits for name, _ in scaled}
    importance = _importance(calibration, weights if settings.fisher else (), params)
    qparams = state.qparams | _weight_qparams(parts, weights, bits, params, importance)
    if not activations:
        return state._replace(qparams=qparams)

    steps, sizes = len(calibration.batches) + 1, (calibration.chunk, calibration.mesh)
    per_batch = []
    for done, images in enumerate(calibration.batches):
        per_batch.append(_batch_ranges(parts, activations, *sizes, params, images))
        calibration.progress(done + 1, steps)
    bounds = _combine(activations, per_batch)
    scored = tuple((name, spec) for name, spec in activations if observers.is_scored(spec))
    last = calibration.batches[-1]

    def errors(specs: Specs, bounds: dict[str, observers.Range], fine: bool) -> dict[str, Array]:
        own = {name: (bits[name], bounds[name]) for name, _ in specs}
        return _errors(parts, specs, *sizes, settings.fisher, fine, params, own, last) if specs else {}

    coarse = errors(scored, bounds, False)
    qparams |= _finish(parts, activations, False, bits, bounds, coarse)
    refined = tuple((name, spec) for name, spec in scored if observers.has_fine_grid(spec))
    if refined:
        bounds = _narrowed(parts, refined, bounds, coarse)
        qparams |= _finish(parts, refined, True, bits, bounds, errors(refined, bounds, True))
    jax.block_until_ready(qparams)
    calibration.progress(steps, steps)
    return state._replace(qparams=qparams)


def _importance(calibration: Calibration, weights: Specs, params: Params) -> dict[str, Array]:
    """The importance of the weights whose observers compare errors."""
    names = tuple(name for name, spec in weights if observers.is_scored(spec))
    if not names:
        return {}
    # Sums of a chunk's gradients are squared, so on several devices each takes all of every chunk.
    images = jnp.concatenate(list(whole(calibration).batches))
    chunks = image_chunks(images, calibration.chunk)
    return fisher.weight_importance(calibration.parts, names, params, chunks, key=jax.random.key(0))


def _per_block(parts: ModelParts, name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, over the leading L axis if the site is stacked."""
    return jax.vmap(fn) if is_stacked(parts, name) else fn


@partial(jax.jit, static_argnames=("parts", "specs"))
def _weight_qparams(
    parts: ModelParts, specs: Specs, bits: dict[str, Array], params: Params, importance: dict[str, Array]
) -> QParams:
    leaves = flatten(params)
    return {
        name: _per_block(parts, name, partial(weight_qparams, spec))(
            bits[name], leaves[name], importance.get(name)
        )
        for name, spec in specs
    }


def weight_qparams(
    spec: QuantSpec, bits: Array, weight: Array, importance: Array | None = None
) -> SiteQParams:
    """The quantizer of one weight [..., K] by its spec's observer.

    `bits` is [1, ..., 1], `importance` of the weight's shape.
    """
    tail = observers.tail_size(spec, weight.shape)
    bounds = observers.batch_range(spec, weight.shape, observers.chunk_range(spec, tail, weight))
    if not observers.is_scored(spec):
        return observers.finish(spec, bits, bounds, None)
    errors = observers.chunk_errors(spec, bits, bounds, weight, importance)
    if not observers.has_fine_grid(spec):
        return observers.finish(spec, bits, bounds, errors)
    bounds = observers.narrowed(spec, bounds, errors)
    errors = observers.chunk_errors(spec, bits, bounds, weight, importance, fine=True)
    return observers.finish(spec, bits, bounds, errors, fine=True)


@partial(jax.jit, static_argnames=("parts", "specs", "chunk", "mesh"))
def _batch_ranges(
    parts: ModelParts, specs: Specs, chunk: int, mesh: Mesh | None, params: Params, images: Array
) -> dict[str, observers.Range]:
    table, size = dict(specs), largest_divisor(images.shape[0] // num_shares(mesh), chunk)
    shapes, chunk_shapes = (
        {name: info.shape for name, info in list_sites(parts, params, images.shape[1:], size).items()}
        for size in (images.shape[0], size)
    )

    def one_chunk(params: Params, x: Array) -> dict[str, observers.Range]:
        def chunk_range(name: str, x: Array, _: None) -> observers.Range:
            return observers.chunk_range(table[name], observers.tail_size(table[name], shapes[name]), x)

        return observe(parts, chunk_range, dict.fromkeys(table), params, x)

    def merge(name: str, leaf: Array) -> Array:
        """[chunks, (L,) tail, ...] -> [(L,) chunks * tail, ...]."""
        lead = int(is_stacked(parts, name))
        if shapes[name] == chunk_shapes[name]:
            leaf = leaf[:1]  # a position table is the same in every chunk, and counts once
        leaf = jnp.moveaxis(leaf, 0, lead)
        return leaf.reshape(*leaf.shape[:lead], -1, *leaf.shape[lead + 2 :])

    def on_device(params: Params, images: Array) -> dict[str, observers.Range]:
        chunks = images.reshape(-1, size, *images.shape[1:])
        found = jax.lax.map(partial(one_chunk, params), chunks)
        return found if mesh is None else jax.lax.all_gather(found, DATA, tiled=True)

    found = spread(mesh, on_device, (P(), P(DATA)), P())(params, images)
    return {
        name: _per_block(parts, name, partial(observers.batch_range, spec, shapes[name]))(
            tuple(merge(name, leaf) for leaf in found[name])
        )
        for name, spec in specs
    }


@partial(jax.jit, static_argnames=("parts", "specs", "chunk", "mesh", "weighed", "fine"))
def _errors(
    parts: ModelParts,
    specs: Specs,
    chunk: int,
    mesh: Mesh | None,
    weighed: bool,
    fine: bool,
    params: Params,
    own: dict[str, tuple[Array, observers.Range]],
    images: Array,
) -> dict[str, Array]:
    """Errors of every site's candidates on all images. `own` has each site's bits and range."""
    table, size = dict(specs), largest_divisor(images.shape[0] // num_shares(mesh), chunk)

    def chunk_errors(name: str, x: Array, entry: tuple[tuple[Array, observers.Range], Array | None]) -> Array:
        (bits, bounds), gradient = entry
        weight = None if gradient is None else fisher.importance(gradient, size)
        return observers.chunk_errors(table[name], bits, bounds, x, weight, fine=fine)

    def on_device(
        params: Params, own: dict[str, tuple[Array, observers.Range]], images: Array, keys: Array
    ) -> dict[str, Array]:
        def one_chunk(args: tuple[Array, Array]) -> dict[str, Array]:
            images, keys = args
            names = tuple(table)
            gradients = fisher.site_gradients(parts, names, params, images, keys=keys) if weighed else {}
            entries = {name: (own[name], gradients.get(name)) for name in table}
            return observe(parts, chunk_errors, entries, params, images)

        chunks = (leaf.reshape(-1, size, *leaf.shape[1:]) for leaf in (images, keys))
        totals = jax.lax.map(one_chunk, tuple(chunks))
        totals = jax.tree.map(lambda leaf: leaf.sum(0), totals)
        return totals if mesh is None else jax.lax.psum(totals, DATA)

    keys = jax.random.split(jax.random.key(0), images.shape[0])
    return spread(mesh, on_device, (P(), P(), P(DATA), P(DATA)), P())(params, own, images, keys)


@partial(jax.jit, static_argnames=("parts", "specs"))
def _narrowed(
    parts: ModelParts, specs: Specs, bounds: dict[str, observers.Range], errors: dict[str, Array]
) -> dict[str, observers.Range]:
    return {
        name: _per_block(parts, name, partial(observers.narrowed, spec))(bounds[name], errors[name])
        for name, spec in specs
    }


@partial(jax.jit, static_argnames=("specs",))
def _combine(specs: Specs, per_batch: list[dict[str, observers.Range]]) -> dict[str, observers.Range]:
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *per_batch)
    return {name: observers.combine_ranges(spec, stacked[name]) for name, spec in specs}


@partial(jax.jit, static_argnames=("parts", "specs", "fine"))
def _finish(
    parts: ModelParts,
    specs: Specs,
    fine: bool,
    bits: dict[str, Array],
    bounds: dict[str, observers.Range],
    errors: dict[str, Array],
) -> QParams:
    return {
        name: _per_block(parts, name, partial(observers.finish, spec, fine=fine))(
            bits[name], bounds[name], errors.get(name)
        )
        for name, spec in specs
    }


def _cost(parts: ModelParts, specs: Specs, settings: RangesConfig, num_images: int) -> Cost:
    del parts, specs, settings
    return Cost(floating=num_images)


RANGES = NetworkLink(
    "ranges",
    "finds the scales and zero points of every site by its observer, on the float network",
    ranges,
    settings=RangesConfig(),
    first=True,
    not_after=NotAfter(lambda earlier: True, "finds all ranges anew, which would undo what came before"),
    shares_images=True,
    cost=_cost,
)
