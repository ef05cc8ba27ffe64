"""Calibration: the first scales of a network, as a chain of pure functions.

A link of the chain takes the network, its specs, `(params, scales)` and calibration images, and gives
new `(params, scales)`. The first link, `ranges`, is the paper's init (FQ-ViT style observers on the
float network); links that fold, compensate or reconstruct have the same form.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from evolq_jax.calibration import observers
from evolq_jax.errors import UserError, suggestion
from evolq_jax.network import SiteInfo, is_stacked, largest_divisor, list_sites, observe
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, ModelParts, Params, QParams, Scales

State = tuple[Params, Scales]
Progress = Callable[[int, int], None]  # (steps done, steps in all)
Initialiser = Callable[..., State]  # see `ranges`


def initialise(
    chain: Sequence[str],
    parts: ModelParts,
    specs: Specs,
    sites: dict[str, SiteInfo],
    params: Params,
    batches: Sequence[Array],
    chunk: int,
    progress: Progress = lambda done, total: None,
) -> State:
    """Runs the links of `chain` in order, starting from no scales.

    Args:
      chain: names from `INITIALISERS`.
      parts: the network.
      specs: what to quantize, resolved for this network.
      sites: the network's quantization points.
      params: float parameters.
      batches: normalised calibration images, each [B, height, width, channels].
      chunk: images run at once (bounds memory; does not change ranges).
      progress: told the steps done.

    Raises:
      UserError: a link's name is unknown.
    """
    state: State = (params, {})
    for link in chain:
        if link not in INITIALISERS:
            raise UserError(f"unknown initialiser '{link}'{suggestion(link, INITIALISERS)}")
        state = INITIALISERS[link](parts, specs, sites, state, batches, chunk, progress)
    return state


def ranges(
    parts: ModelParts,
    specs: Specs,
    sites: dict[str, SiteInfo],
    state: State,
    batches: Sequence[Array],
    chunk: int,
    progress: Progress,
) -> State:
    """Scales from each site's observer, on the float network (the released code's calibration)."""
    params, scales = state
    uniform = [(name, spec) for name, spec in specs if spec.quantizer == "uniform"]
    activations = tuple((name, spec) for name, spec in uniform if not sites[name].is_weight)
    weights = tuple((name, spec) for name, spec in uniform if sites[name].is_weight)
    scales = scales | _weight_qparams(parts, weights, params)
    if not activations:
        return params, scales

    steps = len(batches) + 1
    per_batch = []
    for done, images in enumerate(batches):
        size = largest_divisor(images.shape[0], chunk)
        per_batch.append(_batch_ranges(parts, activations, size, params, images))
        progress(done + 1, steps)
    bounds = _combine(activations, per_batch)
    scored = tuple((name, spec) for name, spec in activations if spec.observer in observers.SCORED)
    errors = {}
    if scored:
        last, size = batches[-1], largest_divisor(batches[-1].shape[0], chunk)
        errors = _errors(parts, scored, size, params, {name: bounds[name] for name, _ in scored}, last)
    jax.block_until_ready(errors)
    progress(steps, steps)
    return params, scales | _finish(parts, activations, bounds, errors)


INITIALISERS: dict[str, Initialiser] = {"ranges": ranges}


def _per_block(parts: ModelParts, name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` over the leading L axis where the site is stacked."""
    return jax.vmap(fn) if is_stacked(parts, name) else fn


@partial(jax.jit, static_argnames=("parts", "specs"))
def _weight_qparams(parts: ModelParts, specs: Specs, params: Params) -> Scales:
    leaves = flatten(params)

    def qparams(spec: QuantSpec, weight: Array) -> QParams:
        tail = observers.tail_size(spec, weight.shape)
        bounds = observers.batch_range(spec, weight.shape, observers.chunk_range(spec, tail, weight))
        scored = spec.observer in observers.SCORED
        return observers.finish(
            spec, bounds, observers.chunk_errors(spec, bounds, weight) if scored else None
        )

    return {name: _per_block(parts, name, partial(qparams, spec))(leaves[name]) for name, spec in specs}


@partial(jax.jit, static_argnames=("parts", "specs", "chunk"))
def _batch_ranges(
    parts: ModelParts, specs: Specs, chunk: int, params: Params, images: Array
) -> dict[str, observers.Range]:
    table = dict(specs)
    shapes, chunk_shapes = (
        {name: info.shape for name, info in list_sites(parts, params, images.shape[1:], size).items()}
        for size in (images.shape[0], chunk)
    )

    def one_chunk(x: Array) -> dict[str, observers.Range]:
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

    chunks = jax.lax.map(one_chunk, images.reshape(-1, chunk, *images.shape[1:]))
    return {
        name: _per_block(parts, name, partial(observers.batch_range, spec, shapes[name]))(
            tuple(merge(name, leaf) for leaf in chunks[name])
        )
        for name, spec in specs
    }


@partial(jax.jit, static_argnames=("parts", "specs", "chunk"))
def _errors(
    parts: ModelParts,
    specs: Specs,
    chunk: int,
    params: Params,
    bounds: dict[str, observers.Range],
    images: Array,
) -> dict[str, Array]:
    table = dict(specs)

    def chunk_errors(name: str, x: Array, site_bounds: observers.Range) -> Array:
        return observers.chunk_errors(table[name], site_bounds, x)

    chunks = images.reshape(-1, chunk, *images.shape[1:])
    totals = jax.lax.map(lambda x: observe(parts, chunk_errors, bounds, params, x), chunks)
    return jax.tree.map(lambda leaf: leaf.sum(0), totals)


@partial(jax.jit, static_argnames=("specs",))
def _combine(specs: Specs, per_batch: list[dict[str, observers.Range]]) -> dict[str, observers.Range]:
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *per_batch)
    return {name: observers.combine_ranges(spec, stacked[name]) for name, spec in specs}


@partial(jax.jit, static_argnames=("parts", "specs"))
def _finish(
    parts: ModelParts, specs: Specs, bounds: dict[str, observers.Range], errors: dict[str, Array]
) -> Scales:
    return {
        name: _per_block(parts, name, partial(observers.finish, spec))(bounds[name], errors.get(name))
        for name, spec in specs
    }
