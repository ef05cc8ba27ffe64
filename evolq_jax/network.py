"""Running a network made of stacked segments: whole, in part, and with its sites observed.

One block is compiled per segment, whatever its depth: blocks run in a loop over their stacked
parameters, and the loop's bounds may be traced. A segment of one block has no loop, so that block may give
another shape than it gets, as those that begin a stage do.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp

from evolq_jax.quant.sites import FloatSite, ObserveSite, RecordSite, SiteFactory
from evolq_jax.quant.spec import scope
from evolq_jax.trees import flatten
from evolq_jax.typing import (
    CORRECTION,
    Array,
    ModelParts,
    Params,
    Preprocessing,
    PyTree,
    Scales,
    Segment,
    Site,
    SiteInfo,
    SiteRoles,
)


def normalize(preprocessing: Preprocessing, pixels: Array) -> Array:
    """uint8 [B, height, width, channels] -> float32 images as the network wants them."""
    mean, std = jnp.asarray(preprocessing.mean), jnp.asarray(preprocessing.std)
    return (pixels.astype(jnp.float32) / 255.0 - mean) / std


def at(stacked: PyTree, index: Array | int) -> PyTree:
    """One block's slice of a tree whose leaves have a leading L axis."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), stacked)


def run_block(segment: Segment, params: Params, site: Site, x: Array) -> Array:
    """One block, plus the linear layer of its input that calibration may have added as a correction."""
    y = segment.block(params, site, x)
    added = params.get(CORRECTION)
    return y if added is None else y + x @ added["weight"] + added["bias"]


def unchanged(params: Params, site: Site, x: Array) -> Array:
    """The `enter` of a segment that takes what the one before gives as it is."""
    del params, site
    return x


def index_in(segment: Segment, index: Array | int) -> Array | int:
    """A block's index for `run_blocks`: traced as it is, but known where there is only one block."""
    return 0 if segment.length == 1 else index


def over_blocks(
    body: Callable[[Array, Any], tuple[Array, Any]], x: Array, blocks: PyTree, *, unroll: bool = False
) -> tuple[Array, Any]:
    """`jax.lax.scan` over blocks stacked on a leading axis; a single one is no loop."""
    if jax.tree.leaves(blocks)[0].shape[0] > 1:
        return jax.lax.scan(body, x, blocks, unroll=unroll)
    x, made = body(x, at(blocks, 0))
    return x, jax.tree.map(lambda leaf: leaf[None], made)


def window(stacked: PyTree, index: Array | int, size: int) -> PyTree:
    """`size` consecutive blocks of a tree whose leaves have a leading L axis, from block `index` on."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index, size), stacked)


def forward(
    parts: ModelParts, make_site: SiteFactory, params: Params, scales: Mapping[str, Any], images: Array
) -> Array:
    """Normalised images [B, height, width, channels] -> logits [B, C]."""
    outer = make_site("", scales)
    x = images
    for segment in parts.segments:
        x = segment.enter(params, outer, x)
        x, _ = scan_blocks(segment, make_site, params, scales, x)
    return parts.head(params, outer, x)


def with_features(
    parts: ModelParts, make_site: SiteFactory, run: Callable[[SiteFactory], Array]
) -> tuple[Array, Array]:
    """What `run(make_site)` gives, and the features [B, ...] that the network's head made on the way."""
    kept: dict[str, Array] = {}

    def recording(segment: str, entries: Mapping[str, Any]) -> Site:
        site = make_site(segment, entries)
        return site if segment else RecordSite(site, frozenset({parts.features}), kept)

    return run(recording), kept[parts.features]


def scan_blocks(
    segment: Segment,
    make_site: SiteFactory,
    params: Params,
    scales: Mapping[str, Any],
    x: Array,
    *,
    unroll: bool = False,
) -> tuple[Array, Array]:
    """All blocks of a segment; returns its output and the input of every block [L, *x.shape].

    The inputs cost nothing where they are not used. Differentiable, unlike `run_blocks`. With `unroll` there
    is no loop: every block is compiled.
    """

    def body(x: Array, block: tuple[Params, Scales]) -> tuple[Array, Array]:
        block_params, block_scales = block
        return run_block(segment, block_params, make_site(segment.name, block_scales), x), x

    return over_blocks(body, x, (params[segment.name], scope(scales, segment.name)), unroll=unroll)


def run_blocks(
    segment: Segment,
    make_site: SiteFactory,
    params: Params,
    scales: Mapping[str, Any],
    x: Array,
    start: Array | int,
    stop: Array | int,
) -> Array:
    """Blocks `start` to `stop - 1` of a segment; the bounds may be traced (no reverse gradient then).

    Not so in a segment of one block: whether that runs decides on the shape (`index_in`).
    """
    stacked = params[segment.name], scope(scales, segment.name)

    def body(index: Array | int, x: Array) -> Array:
        block_params, block_scales = at(stacked, index)
        return run_block(segment, block_params, make_site(segment.name, block_scales), x)

    if segment.length == 1:
        return body(0, x) if start < stop else x
    return jax.lax.fori_loop(start, stop, body, x)


def observe(
    parts: ModelParts,
    observe_fn: Callable[[str, Array, Any], PyTree],
    stats: Mapping[str, Any],
    params: Params,
    images: Array,
) -> dict[str, PyTree]:
    """Runs the float network and returns `observe_fn(site, x, stats[site])` of every site in `stats`.

    Entries of stacked sites have a leading L axis, in `stats` and in the result.
    """

    def recorder(segment: str, entries: Mapping[str, Any]) -> ObserveSite:
        prefix = segment + "/" if segment else ""
        return ObserveSite(lambda name, x: observe_fn(prefix + name, x, entries[name]), frozenset(entries))

    outside = {k: v for k, v in stats.items() if not is_stacked(parts, k)}
    outer, records, x = recorder("", outside), {}, images
    for segment in parts.segments:
        x = segment.enter(params, outer, x)

        def body(x: Array, block: tuple[Params, Any], segment: Segment = segment) -> tuple[Array, PyTree]:
            site = recorder(segment.name, block[1])
            return run_block(segment, block[0], site, x), site.records

        x, stacked = over_blocks(body, x, (params[segment.name], scope(stats, segment.name)))
        records |= {f"{segment.name}/{name}": record for name, record in stacked.items()}
    parts.head(params, outer, x)
    return records | outer.records


class _NamingSite(FloatSite):
    """Collects every site it passes."""

    def __init__(self, prefix: str, depth: int | None) -> None:
        self.prefix, self.depth = prefix, depth
        self.sites: dict[str, SiteInfo] = {}

    def __call__(self, name: str, x: Array, *roles: str) -> Array:
        self.sites[self.prefix + name] = SiteInfo(x.shape, self.depth, False, frozenset(roles))
        return x

    def layer_norm(self, name: str, source: str, x: Array, weight: Array, bias: Array, eps: float) -> Array:
        return self(name, super().layer_norm(name, source, x, weight, bias, eps), "layer_norm")

    def softmax(self, name: str, source: str, logits: Array) -> Array:
        return self(name, super().softmax(name, source, logits), "softmax")

    def add_weights(self, params: Params) -> None:
        for name, leaf in flatten(params).items():
            if name.endswith("weight") and leaf.ndim >= 2:
                self.sites[self.prefix + name] = SiteInfo(leaf.shape, self.depth, True)


def is_stacked(parts: ModelParts, name: str) -> bool:
    """Whether a site or parameter belongs to a segment, so that its entries have a leading L axis."""
    return name.split("/")[0] in {segment.name for segment in parts.segments}


def list_sites(
    parts: ModelParts, params: Params, image_shape: tuple[int, ...], batch: int = 1
) -> dict[str, SiteInfo]:
    """Every quantization point of a network by name, in the order of the forward pass.

    Weights (matrices and kernels) come after the activations of their scope. Nothing is computed.
    """
    sites: dict[str, SiteInfo] = {}
    outer = _NamingSite("", None)
    x = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    for segment in parts.segments:
        x = jax.eval_shape(lambda p, x, s=segment: s.enter(p, outer, x), params, x)
        inner = _NamingSite(segment.name + "/", segment.length)
        block = jax.eval_shape(lambda p: at(p, 0), params[segment.name])
        x = jax.eval_shape(lambda p, x, s=segment, i=inner: s.block(p, i, x), block, x)
        inner.add_weights(block)
        sites |= inner.sites
    jax.eval_shape(lambda p, x: parts.head(p, outer, x), params, x)
    outer.add_weights({k: v for k, v in params.items() if not is_stacked(parts, k)})
    sites |= outer.sites
    return {k: info._replace(roles=info.roles | _roles(parts.roles, k)) for k, info in sites.items()}


def _roles(roles: SiteRoles, name: str) -> set[str]:
    """The roles whose patterns the site's name matches."""
    return {role for role, patterns in vars(roles).items() if any(fnmatchcase(name, p) for p in patterns)}


def largest_divisor(total: int, at_most: int) -> int:
    """The largest divisor of `total` up to `at_most`: a chunk size that needs no padding."""
    return next(size for size in range(min(total, max(at_most, 1)), 0, -1) if total % size == 0)


def image_chunks(images: Array, chunk: int, shards: int = 1) -> Array:
    """[B, ...] -> [chunks, size, ...], for a loop over chunks.

    Where the images lie in equal shares on so many devices, every chunk is up to `chunk` of each of them, so
    that the loop moves none: another order, in which everything that belongs to images must be put.
    """
    size = largest_divisor(images.shape[0] // shards, chunk)
    if shards == 1:
        return images.reshape(-1, size, *images.shape[1:])
    by_device = images.reshape(shards, -1, size, *images.shape[1:])
    return by_device.swapaxes(0, 1).reshape(-1, shards * size, *images.shape[1:])


def in_chunks(fn: Callable[[Array], Any], x: Array, chunk: int) -> Any:
    """`fn` on chunks of the leading axis [B, ...], one after the other; at most `chunk` at once.

    It gives arrays with the same leading axis, in any tree.
    """
    size = largest_divisor(x.shape[0], chunk)
    found = jax.lax.map(fn, x.reshape(-1, size, *x.shape[1:]))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)
