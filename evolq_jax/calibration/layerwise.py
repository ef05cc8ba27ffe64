"""The walk of compensating links: layer by layer, on what the quantized network feeds each layer.

Two sets of activations go through the network side by side: the float network's, and those of the
network as quantized and corrected so far. At each linear layer of a block the moments of its quantized
input and of the output wanted there (the float network's and, at the end of a branch, a share of the error
that the residual stream has by then) are summed over all calibration images, and the links change the
layer in turn. A token counts by how much it matters to the network's output, and where its stream is
normalised next, relative to the stream's size (`Calibration.token_weights`). Consecutive links share one
walk: a layer is corrected by all of them before the walk moves on, as GPTQ and ERQ do. A convolution is a
linear layer over patches.
"""

from collections.abc import Container
from functools import partial

import jax
import jax.numpy as jnp

from evolq_jax.calibration import patches
from evolq_jax.calibration.fisher import token_weights
from evolq_jax.calibration.layer import Layer, LayerLink, Moments, moments_of
from evolq_jax.calibration.link import Calibration, State
from evolq_jax.calibration.links.bias import bias_link
from evolq_jax.calibration.links.gptq import gptq_link
from evolq_jax.calibration.links.own_output import own_output_link
from evolq_jax.calibration.links.ridge import ridge_link
from evolq_jax.devices.mesh import num_shares
from evolq_jax.network.chunks import image_chunks
from evolq_jax.network.parts import BLOCK_INPUT, Linear, ModelParts
from evolq_jax.network.run import at
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import RecordSite, fake_quant_weights, float_sites, quant_sites
from evolq_jax.quant.spec import QuantSpec, Specs, scope
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params

LINKS: dict[str, LayerLink] = {"ridge": ridge_link, "gptq": gptq_link, "bias": bias_link}
LAYERWISE: dict[str, LayerLink] = {"own_output": own_output_link, **LINKS}

Streams = tuple[Array, Array]  # the float and the quantized network's activations [chunks, B, ...]


def walk(
    links: tuple[str, ...], calibration: Calibration, state: State, chosen: Container[str] | None = None
) -> State:
    """Applies `links` (names from `LAYERWISE`) to linear layers, in the order of the forward pass.

    `chosen` are the layers' weights by site; None: of all layers.
    """
    parts, specs, damping, pull = calibration.parts, calibration.specs, calibration.damping, calibration.pull
    steps = sum(segment.length * (len(segment.linears) + 1) for segment in parts.segments)
    done = 0
    streams = image_streams(calibration)
    shares, weighting = num_shares(calibration.mesh), calibration.token_weights
    fisher = (
        token_weights(parts, state.reference, streams[0], jax.random.key(0), shares)
        if weighting == "fisher"
        else {}
    )
    relative = weighting != "equal"
    for number, segment in enumerate(parts.segments):
        streams = enter_segment(parts, specs, number, state, streams)
        for block in range(segment.length):
            index = jnp.int32(block)
            for linear in segment.linears:
                done += 1
                if chosen is not None and f"{segment.name}/{linear.name}/weight" not in chosen:
                    continue
                weights = fisher.get(f"{segment.name}/{linear.name}")
                tokens = None if weights is None else weights[:, block]
                arguments = damping, pull, relative, state, streams, tokens, index
                state = _correct(parts, specs, number, linear, links, *arguments)
                calibration.progress(done, steps)
            streams = jax.block_until_ready(advance(parts, specs, number, state, streams, index))
            done += 1
            calibration.progress(done, steps)
    return state


def image_streams(calibration: Calibration) -> Streams:
    """The calibration images in chunks [chunks, B, height, width, channels], twice."""
    in_chunks = jax.jit(image_chunks, static_argnums=(1, 2))
    images = jnp.concatenate(list(calibration.batches))
    images = in_chunks(images, calibration.chunk, num_shares(calibration.mesh))
    return images, images


@partial(jax.jit, static_argnames=("parts", "specs", "number"))
def enter_segment(parts: ModelParts, specs: Specs, number: int, state: State, streams: Streams) -> Streams:
    """Both networks' activations at the entry of a segment."""
    enter = parts.segments[number].enter
    quantized = fake_quant_weights(specs, state.params, state.qparams)
    float_site, quant_site = float_sites("", {}), quant_sites(specs)("", state.qparams)
    return (
        jax.lax.map(lambda x: enter(state.reference, float_site, x), streams[0]),
        jax.lax.map(lambda x: enter(quantized, quant_site, x), streams[1]),
    )


@partial(jax.jit, static_argnames=("parts", "specs", "number"))
def advance(
    parts: ModelParts, specs: Specs, number: int, state: State, streams: Streams, index: Array
) -> Streams:
    """Both networks' activations behind block `index`."""
    segment = parts.segments[number]
    reference, params, qparams = block_of(parts, number, state, index)
    quantized = fake_quant_weights(local_specs(specs, segment.name), params, qparams)
    float_site, quant_site = float_sites(segment.name, {}), quant_sites(specs)(segment.name, qparams)
    return (
        jax.lax.map(lambda x: segment.block(reference, float_site, x), streams[0]),
        jax.lax.map(lambda x: segment.block(quantized, quant_site, x), streams[1]),
    )


@partial(jax.jit, static_argnames=("parts", "specs", "number", "linear", "links", "relative"))
def _correct(
    parts: ModelParts,
    specs: Specs,
    number: int,
    linear: Linear,
    links: tuple[str, ...],
    damping: float,
    pull: float,
    relative: bool,
    state: State,
    streams: Streams,
    tokens: Array | None,
    index: Array,
) -> State:
    """One layer of block `index`, changed by all links."""
    segment = parts.segments[number]
    moments = _moments(parts, specs, number, linear, pull, relative, state, streams, tokens, index)
    _, block, qparams = block_of(parts, number, state, index)
    leaves, site = flatten(block), f"{linear.name}/weight"
    spec = scope(specs, segment.name).get(site)
    weight, bias, site_qparams = leaves[site], leaves[f"{linear.name}/bias"], qparams.get(site)
    layer = corrected(
        tuple(LAYERWISE[name] for name in links), spec, moments, Layer(weight, bias, site_qparams), damping
    )
    stacked = flatten(state.params)
    for name, value in ((site, layer.weight), (f"{linear.name}/bias", layer.bias)):
        stacked[f"{segment.name}/{name}"] = stacked[f"{segment.name}/{name}"].at[index].set(value)
    all_qparams = dict(state.qparams)
    if layer.site_qparams is not None:
        name = f"{segment.name}/{site}"
        all_qparams[name] = jax.tree.map(
            lambda a, b: a.at[index].set(b), all_qparams[name], layer.site_qparams
        )
    return state._replace(params=unflatten(stacked), qparams=all_qparams)


def _moments(
    parts: ModelParts,
    specs: Specs,
    number: int,
    linear: Linear,
    pull: float,
    relative: bool,
    state: State,
    streams: Streams,
    tokens: Array | None,
    index: Array,
) -> Moments:
    """Of the layer's quantized input, and of the output that would bring both networks together."""
    segment = parts.segments[number]
    reference, params, qparams = block_of(parts, number, state, index)
    quantized = fake_quant_weights(local_specs(specs, segment.name), params, qparams)
    weight, bias = (flatten(reference)[f"{linear.name}/{leaf}"] for leaf in ("weight", "bias"))

    names = frozenset(filter(None, (linear.source, linear.residual)))

    def one_chunk(chunk: tuple[Array, Array, Array | None]) -> Moments:
        kept = []
        for factory, block, x in (
            (float_sites, reference, chunk[0]),
            (quant_sites(specs), quantized, chunk[1]),
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
            if linear.normed and relative:
                # Only a token's error relative to the whole stream counts. Without this, the few tokens with
                # massive activations are all that is fitted.
                token /= ((wanted + added) ** 2).mean(-1, keepdims=True)
            wanted += pull * (added - rough)
        return moments_of(token, x, wanted)

    def add(sums: Moments, chunk: tuple[Array, Array, Array | None]) -> tuple[Moments, None]:
        return jax.tree.map(jnp.add, sums, one_chunk(chunk)), None

    chunks = (*streams, tokens)
    shapes = jax.eval_shape(one_chunk, jax.tree.map(lambda leaf: leaf[0], chunks))
    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, shapes), chunks)[0]


def _rows(linear: Linear, x: Array) -> Array:
    """What a layer's output is added to, in the order of the layer's tokens [T, out]."""
    x = x if linear.arrange is None else linear.arrange(x)
    return x.reshape(-1, x.shape[-1])


def block_of(parts: ModelParts, number: int, state: State, index: Array) -> tuple[Params, Params, QParams]:
    """Reference, parameters and scales of one block."""
    name = parts.segments[number].name
    return at((state.reference[name], state.params[name], scope(state.qparams, name)), index)


def local_specs(specs: Specs, segment: str) -> Specs:
    """The quantizers of one segment, by local site name."""
    return tuple(scope(specs, segment).items())


def corrected(
    links: tuple[LayerLink, ...], spec: QuantSpec | None, moments: Moments, layer: Layer, damping: float
) -> Layer:
    """A linear layer or convolution changed by `links` one after the other; groups each by their own moments.

    Groups that share one range keep it and their weights: only `bias` corrects them.
    """
    groups = len(moments.xx) if moments.xx.ndim == 3 else 1
    shared = groups > 1 and spec is not None and not spec.per_channel
    if shared:
        links = tuple(link for link in links if link is bias_link)

    def change(moments: Moments, layer: Layer) -> Layer:
        for link in links:
            layer = link(spec, moments, layer, damping)
        return layer

    def as_matrix(leaf: Array) -> Array:
        if groups > 1:  # a range that groups share is repeated for each
            leaf = jnp.broadcast_to(leaf, (*leaf.shape[:-1], layer.weight.shape[-1]))
        return patches.as_matrix(leaf, groups)

    weight, *numbers = jax.tree.map(as_matrix, (layer.weight, layer.site_qparams))
    if groups == 1:
        found = change(moments, Layer(weight, layer.bias, *numbers))
    else:
        found = jax.vmap(change)(moments, Layer(weight, layer.bias.reshape(groups, -1), *numbers))
    site_qparams = layer.site_qparams
    if site_qparams is not None and not shared:
        site_qparams = jax.tree.map(
            lambda new, old: patches.as_weight(new, old.shape), found.site_qparams, site_qparams
        )
    return Layer(patches.as_weight(found.weight, layer.weight.shape), found.bias.reshape(-1), site_qparams)
