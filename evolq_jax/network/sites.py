"""Lists a network's quantization points, and observes them while the network runs."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from evolq_jax.network.parts import ModelParts, Segment, SiteRoles
from evolq_jax.network.run import at, over_blocks, run_block
from evolq_jax.quant.sites import FloatSite, ObserveSite, RecordSite
from evolq_jax.quant.spec import scope
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params, PyTree, Site, SiteInfo


def observe(
    parts: ModelParts,
    observe_fn: Callable[[str, Array, Any], PyTree],
    params: Params,
    images: Array,
    *,
    stats: Mapping[str, Any],
) -> dict[str, PyTree]:
    """Runs the float network and returns `observe_fn(site, x, stats[site])` for every site in `stats`.

    Args:
      parts: the network's functions.
      observe_fn: `(site, x [B, ...], entry of stats) -> any tree of arrays`.
      params: float parameters.
      images: normalised images [B, height, width, channels].
      stats: by site. For stacked sites, entries have a leading L axis here and in the result.
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


def observe_chunks(
    parts: ModelParts,
    observe_fn: Callable[[str, Array, PyTree, Any], PyTree],
    params: Params,
    chunks: Array,
    *,
    chunk_fn: Callable[[str, Array], PyTree],
    stats: Mapping[str, Any],
) -> dict[str, PyTree]:
    """As `observe`, but all images pass a block before the next one: `observe_fn` sees all of a site at once.

    The activations of all images inside one block are held.

    Args:
      parts: the network's functions.
      observe_fn: `(site, x [chunks, B, ...], what chunk_fn made of every chunk, entry of stats) -> any tree`.
      params: float parameters.
      chunks: normalised images in chunks [chunks, B, height, width, channels].
      chunk_fn: `(site, x [B, ...]) -> any tree of arrays`.
      stats: by site. For stacked sites, entries have a leading L axis here and in the result.
    """

    def over_chunks(run: Callable[[Site, Array], Array], scope_name: str, entries: Any, x: Array) -> Any:
        prefix, names = scope_name + "/" if scope_name else "", frozenset[str](entries)

        def one(x: Array) -> tuple[Array, dict[str, Array], dict[str, PyTree]]:
            observing = ObserveSite(lambda name, x: chunk_fn(prefix + name, x), names)
            site = RecordSite(observing, names)
            return run(site, x), site.kept, observing.records

        x, kept, made = jax.lax.map(one, x)
        return x, {
            name: observe_fn(prefix + name, own, made[name], entries[name]) for name, own in kept.items()
        }

    outside = {k: v for k, v in stats.items() if not is_stacked(parts, k)}
    records, x = {}, chunks
    for segment in parts.segments:
        x, found = over_chunks(partial(segment.enter, params), "", outside, x)
        records |= found

        def body(x: Array, block: tuple[Params, Any], segment: Segment = segment) -> tuple[Array, PyTree]:
            return over_chunks(partial(run_block, segment, block[0]), segment.name, block[1], x)

        x, stacked = over_blocks(body, x, (params[segment.name], scope(stats, segment.name)))
        records |= {f"{segment.name}/{name}": record for name, record in stacked.items()}
    return records | over_chunks(partial(parts.head, params), "", outside, x)[1]


class _NamingSite(FloatSite):
    """Collects every site it passes."""

    def __init__(self, prefix: str, depth: int | None) -> None:
        self.prefix, self.depth = prefix, depth
        self.sites: dict[str, SiteInfo] = {}

    def __call__(self, name: str, x: Array, *roles: str) -> Array:
        self.sites[self.prefix + name] = SiteInfo(x.shape, self.depth, False, frozenset(roles))
        return x

    def layer_norm(self, name: str, source: str, x: Array, norm: Params, *, eps: float) -> Array:
        return self(name, super().layer_norm(name, source, x, norm, eps=eps), "layer_norm")

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
