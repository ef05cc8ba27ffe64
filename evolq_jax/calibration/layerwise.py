"""The walk of layer links: layer by layer, on what the quantized network feeds each layer.

Two sets of activations go through the network side by side: those of the float network, and those of the
network as quantized and corrected so far. At each linear layer of a block, the moments of its quantized input
and of its wanted output are summed over all calibration images. Then the links change the layer in turn.

- The wanted output is that of the float network. At the end of a branch, a share of the error that the
  residual stream has by then is added.
- A token counts by how much it matters to the network's output. If its stream is normalised next, it also
  counts relative to the stream's size (`WalkConfig.token_weights`).
- Neighbouring links share one walk: all of them correct a layer before the walk moves on, as in GPTQ and ERQ.
- A convolution is a linear layer over patches.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration import patches
from evolq_jax.calibration.fisher import token_weights
from evolq_jax.calibration.layer import Layer, Moments, moments_of
from evolq_jax.calibration.link import Calibration, LayerLink, State, WalkConfig
from evolq_jax.calibration.streams import Place, Streams, advance, block_of, enter_segment, image_streams
from evolq_jax.devices.mesh import num_shares
from evolq_jax.network.parts import BLOCK_INPUT, Linear
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.sites import RecordSite, fake_quant_weights, float_sites, quant_sites
from evolq_jax.quant.spec import QuantSpec, scope
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array


class Stop(NamedTuple):
    """A layer at which the walk stops, in any block of a segment. Static."""

    place: Place
    linear: Linear
    links: tuple[LayerLink, ...]  # without their settings, which are traced
    relative: bool  # whether a token's error counts relative to its stream's size


class Seen(NamedTuple):
    """What arrives at a layer: the block's inputs, and the weights of their tokens."""

    streams: Streams
    tokens: Array | None  # [chunks, B, N]; None: all the same
    block: Array  # its index
    pull: float


def walk(links: Sequence[LayerLink], calibration: Calibration, state: State) -> State:
    """Applies `links` to every linear layer, in the order of the forward pass.

    The first link's `walk` applies to all links.
    """
    parts, config = calibration.parts, links[0].walk
    steps = sum(segment.length * (len(segment.linears) + 1) for segment in parts.segments)
    done = 0
    streams = image_streams(calibration)
    fisher = {}
    if config.token_weights == "fisher":
        images, shares = streams.floating, num_shares(calibration.mesh)
        fisher = token_weights(parts, state.reference, images, jax.random.key(0), shards=shares)
    bare = tuple(replace(link, settings=None, walk=WalkConfig()) for link in links)
    settings = tuple(link.settings for link in links)
    for number, segment in enumerate(parts.segments):
        place = Place(parts, calibration.specs, number)
        streams = enter_segment(place, state, streams)
        for block in range(segment.length):
            index = jnp.int32(block)
            for linear in segment.linears:
                done += 1
                weights = fisher.get(f"{segment.name}/{linear.name}")
                tokens = None if weights is None else weights[:, block]
                stop = Stop(place, linear, bare, config.token_weights != "equal")
                state = _correct(stop, state, Seen(streams, tokens, index, config.pull), settings)
                calibration.progress(done, steps)
            streams = jax.block_until_ready(advance(place, state, streams, index))
            done += 1
            calibration.progress(done, steps)
    return state


@partial(jax.jit, static_argnames=("stop",))
def _correct(stop: Stop, state: State, seen: Seen, settings: tuple[Any, ...]) -> State:
    """One layer of a block, changed by all links."""
    place, linear, index = stop.place, stop.linear, seen.block
    name = place.segment.name
    moments = _moments(stop, state, seen)
    _, block, qparams = block_of(place, state, index)
    leaves, site = flatten(block), f"{linear.name}/weight"
    layer = Layer(leaves[site], leaves[f"{linear.name}/bias"], qparams.get(site))
    links = [replace(link, settings=own) for link, own in zip(stop.links, settings, strict=True)]
    layer = corrected(links, scope(place.specs, name).get(site), moments, layer)
    stacked = flatten(state.params)
    for leaf, value in ((site, layer.weight), (f"{linear.name}/bias", layer.bias)):
        stacked[f"{name}/{leaf}"] = stacked[f"{name}/{leaf}"].at[index].set(value)
    all_qparams = dict(state.qparams)
    if layer.site_qparams is not None:
        whole = f"{name}/{site}"
        all_qparams[whole] = jax.tree.map(
            lambda a, b: a.at[index].set(b), all_qparams[whole], layer.site_qparams
        )
    return state._replace(params=unflatten(stacked), qparams=all_qparams)


def _moments(stop: Stop, state: State, seen: Seen) -> Moments:
    """The moments of the quantized input, and of the output that would bring both networks together."""
    place, linear = stop.place, stop.linear
    segment = place.segment
    reference, params, qparams = block_of(place, state, seen.block)
    quantized = fake_quant_weights(place.local_specs, params, qparams)
    weight, bias = (flatten(reference)[f"{linear.name}/{leaf}"] for leaf in ("weight", "bias"))

    names = frozenset(filter(None, (linear.source, linear.residual)))

    def one_chunk(chunk: tuple[Array, Array, Array | None]) -> Moments:
        kept = []
        for factory, block, x in (
            (float_sites, reference, chunk[0]),
            (quant_sites(place.specs), quantized, chunk[1]),
        ):
            site = RecordSite(factory(segment.name, qparams), names)
            segment.block(block, site, x)
            kept.append(site.kept | {BLOCK_INPUT: x})
        exact, x = (patches.tokens(values[linear.source], weight) for values in kept)
        wanted = patches.product(exact, weight) + bias
        token = jnp.ones((len(wanted), 1))
        if chunk[2] is not None:
            token += chunk[2].reshape(-1, 1)
        if linear.residual is not None:
            added, rough = (_rows(linear, values[linear.residual]) for values in kept)
            if linear.normed and stop.relative:
                # Only a token's error relative to the whole stream counts. Without this, the few tokens with
                # massive activations are all that is fitted.
                token /= ((wanted + added) ** 2).mean(-1, keepdims=True)
            wanted += seen.pull * (added - rough)
        return moments_of(token, x, wanted)

    def add(sums: Moments, chunk: tuple[Array, Array, Array | None]) -> tuple[Moments, None]:
        return jax.tree.map(jnp.add, sums, one_chunk(chunk)), None

    chunks = (seen.streams.floating, seen.streams.quantized, seen.tokens)
    shapes = jax.eval_shape(one_chunk, jax.tree.map(lambda leaf: leaf[0], chunks))
    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, shapes), chunks)[0]


def _rows(linear: Linear, x: Array) -> Array:
    """The tensor to which a layer's output is added, in the order of the layer's tokens [T, out]."""
    x = x if linear.arrange is None else linear.arrange(x)
    return x.reshape(-1, x.shape[-1])


def corrected(links: Sequence[LayerLink], spec: QuantSpec | None, moments: Moments, layer: Layer) -> Layer:
    """A linear layer or convolution, changed by `links` in turn. Each group has its own moments.

    Groups that share one range keep their range and weights, except for links with `shared_ranges`.
    """
    groups = len(moments.xx) if moments.xx.ndim == 3 else 1
    shared = groups > 1 and spec is not None and not spec.per_channel
    serving = [link for link in links if link.shared_ranges or not shared]

    def change(moments: Moments, layer: Layer) -> Layer:
        for link in serving:
            layer = link.function(spec, moments, layer, link.settings)
        return layer

    def as_matrix(leaf: Array) -> Array:
        if groups > 1:  # a range that groups share is repeated for each
            leaf = jnp.broadcast_to(leaf, (*leaf.shape[:-1], layer.weight.shape[-1]))
        return patches.as_matrix(leaf, groups)

    weight, own, site_qparams = as_matrix(layer.weight), None, layer.site_qparams
    if site_qparams is not None:
        bits = jnp.broadcast_to(site_qparams.bits.reshape(1, 1), (groups, 1, 1) if groups > 1 else (1, 1))
        own = SiteQParams(as_matrix(site_qparams.scale), as_matrix(site_qparams.zero_point), bits)
    if groups == 1:
        found = change(moments, Layer(weight, layer.bias, own))
    else:
        found = jax.vmap(change)(moments, Layer(weight, layer.bias.reshape(groups, -1), own))
    if site_qparams is not None and found.site_qparams is not None and not shared:
        scale, zero_point, _ = found.site_qparams
        shape = site_qparams.scale.shape
        site_qparams = site_qparams._replace(
            scale=patches.as_weight(scale, shape), zero_point=patches.as_weight(zero_point, shape)
        )
    return Layer(patches.as_weight(found.weight, layer.weight.shape), found.bias.reshape(-1), site_qparams)
