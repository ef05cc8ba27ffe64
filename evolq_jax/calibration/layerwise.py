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

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Lowered

from evolq_jax.calibration import patches
from evolq_jax.calibration.arrival import Stop, Weighing, arrive, layer_of
from evolq_jax.calibration.fisher import token_weights
from evolq_jax.calibration.layer import Layer, Moments
from evolq_jax.calibration.link import Calibration, LayerLink, State, WalkConfig
from evolq_jax.calibration.streams import (
    Block,
    Place,
    at_input,
    enter_segment,
    image_streams,
    leave,
    one_block,
    run_both,
)
from evolq_jax.devices.ahead import compile_ahead, shapes_of
from evolq_jax.devices.mesh import num_shares
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.spec import QuantSpec, scope
from evolq_jax.trees import flatten, stack, unflatten
from evolq_jax.typing import Array


def walk(links: Sequence[LayerLink], calibration: Calibration, state: State) -> State:
    """Applies `links` to every linear layer, in the order of the forward pass.

    The first link's `walk` applies to all links.
    """
    parts, config = calibration.parts, links[0].walk
    steps = sum(segment.length * (len(segment.linears) + 1) for segment in parts.segments)
    done = 0
    if calibration.mesh is None:
        compile_ahead(*_programs(links, calibration, state))
    streams = image_streams(calibration)
    fisher = {}
    if config.token_weights == "fisher":
        images, shares = streams.floating, num_shares(calibration.mesh)
        fisher = token_weights(parts, state.reference, images, jax.random.key(0), shards=shares)
    for number, segment in enumerate(parts.segments):
        place, changed = Place(parts, calibration.specs, number), list[dict[str, Layer]]()
        streams = enter_segment(place, state, streams)
        for index in range(segment.length):
            block, known = one_block(place, state, jnp.int32(index)), at_input(streams)
            for linear in segment.linears:
                stop = Stop(place, linear, config.token_weights != "equal")
                tokens = fisher.get(f"{segment.name}/{linear.name}")
                moments, known = arrive(stop, block, known, Weighing(tokens, jnp.int32(index), config.pull))
                block = _with_layer(block, linear.name, _changed(links, stop, moments, block))
                done += 1
                calibration.progress(done, steps)
            streams = jax.block_until_ready(leave(place, block, known))
            changed.append({linear.name: layer_of(block, linear.name) for linear in segment.linears})
            done += 1
            calibration.progress(done, steps)
        state = _with_layers(state, segment.name, _stacked(changed))
    return state


def _programs(
    links: Sequence[LayerLink], calibration: Calibration, state: State
) -> list[Callable[[], Lowered]]:
    """The walk's programs: what a block of each segment runs, for shapes in place of arrays."""
    programs, parts, config = list[Callable[[], Lowered]](), calibration.parts, links[0].walk
    streams, state = jax.eval_shape(lambda: image_streams(calibration)), shapes_of(state)
    fisher = {}
    if config.token_weights == "fisher":
        weigh = partial(token_weights, parts)
        fisher = jax.eval_shape(weigh, state.reference, streams.floating, jax.random.key(0))
    for number, segment in enumerate(parts.segments):
        place = Place(parts, calibration.specs, number)
        first: Any = jax.ShapeDtypeStruct((), jnp.int32)
        streams = jax.eval_shape(partial(enter_segment, place), state, streams)
        block, known = jax.eval_shape(partial(one_block, place), state, first), at_input(streams)
        for linear in segment.linears:
            stop = Stop(place, linear, config.token_weights != "equal")
            tokens = fisher.get(f"{segment.name}/{linear.name}")
            weighing = Weighing(tokens, first, config.pull)
            programs.append(partial(arrive.lower, stop, block, known, weighing))
            moments, known = jax.eval_shape(partial(arrive, stop), block, known, weighing)
            programs.append(partial(_changed, links, stop, moments, block, run=_corrected.lower))
            layer = jax.eval_shape(partial(_changed, links, stop), moments, block)
            block = _with_layer(block, linear.name, layer)
        programs.append(partial(leave.lower, place, block, known))
        streams = jax.eval_shape(partial(run_both, place), block, known)
    return programs


def _changed(
    links: Sequence[LayerLink],
    stop: Stop,
    moments: Moments,
    block: Block,
    *,
    run: Callable[..., Any] | None = None,
) -> Any:
    """The stop's layer, changed by all links. Layers of one shape share a program.

    With `run`, what that makes of the program's arguments.
    """
    bare = tuple(replace(link, settings=None, walk=WalkConfig()) for link in links)
    spec = dict(stop.place.local_specs).get(f"{stop.linear.name}/weight")
    settings = tuple(link.settings for link in links)  # are traced
    run = run or _corrected
    return run(bare, spec, moments, layer_of(block, stop.linear.name), settings=settings)


@partial(jax.jit, static_argnames=("links", "spec"))
def _corrected(
    links: tuple[LayerLink, ...],
    spec: QuantSpec | None,
    moments: Moments,
    layer: Layer,
    *,
    settings: tuple[Any, ...],
) -> Layer:
    given = [replace(link, settings=own) for link, own in zip(links, settings, strict=True)]
    return corrected(given, spec, moments, layer)


def _with_layer(block: Block, name: str, layer: Layer) -> Block:
    """The block, or a segment's stacked blocks, with a layer in place of that of the same name."""
    site = f"{name}/weight"
    leaves = flatten(block.params) | {site: layer.weight, f"{name}/bias": layer.bias}
    own = {} if layer.site_qparams is None else {site: layer.site_qparams}
    return block._replace(params=unflatten(leaves), qparams=block.qparams | own)


_stacked = jax.jit(stack)


def _with_layers(state: State, segment: str, layers: dict[str, Layer]) -> State:
    """The state with the layers of all blocks of a segment, each with a leading L axis."""
    block = Block({}, state.params[segment], scope(state.qparams, segment))
    for name, layer in layers.items():
        block = _with_layer(block, name, layer)
    qparams = {f"{segment}/{name}": own for name, own in block.qparams.items()}
    return state._replace(params=state.params | {segment: block.params}, qparams=state.qparams | qparams)


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
