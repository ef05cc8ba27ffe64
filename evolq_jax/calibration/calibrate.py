"""Calibration: the first scales of a network, by a chain of links.

No link uses labels or evaluation images.
"""

from collections.abc import Callable, Mapping, Sequence

from jax.sharding import Mesh

from evolq_jax.calibration.chain import check_links, find_links, group_links
from evolq_jax.calibration.layerwise import walk
from evolq_jax.calibration.link import Calibration, LayerLink, Link, NetworkLink, State, whole
from evolq_jax.network.parts import ModelParts
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import encode_weights
from evolq_jax.quant.spec import Specs, with_codes
from evolq_jax.typing import Array, Params, Progress, SiteInfo, no_progress


def calibrate(
    parts: ModelParts,
    specs: Specs,
    params: Params,
    batches: Sequence[Array],
    *,
    sites: Mapping[str, SiteInfo],
    qparams: QParams,
    chain: Sequence[str | Link] = ("ranges",),
    chunk: int = 10,
    seed: int = 0,
    mesh: Mesh | None = None,
    stage: Callable[[str], Progress] = lambda name: no_progress,
    on_step: Callable[[str, State], None] = lambda name, state: None,
) -> State:
    """Runs the links of a chain in order. It starts from the float parameters and the bits.

    Neighbouring layer links share one walk through the network. Links work on weights. At the end, weights
    whose spec says `codes` (`chain.specs_after`) become integers. This is exact for weights that a link left
    on their grid.

    Args:
      parts: the network.
      specs: what to quantize, resolved for this network.
      params: float parameters.
      batches: normalised calibration images, each [B, height, width, channels]. Smoothing observers update,
        and `omse` and `ptf` score, per batch.
      sites: the network's quantization points (`network.sites.list_sites`).
      qparams: the quantizers' numbers before the first link: their bits (`quant.qparams.blank_qparams`).
      chain: names from `LINKS`, or links themselves. `dataclasses.replace` gives a link other settings.
      chunk: images run at once on a device (bounds memory; changes results by rounding at most).
      seed: of the random draws that links make.
      mesh: devices; the images of each batch are spread over its data axis in equal shares. None: one device.
      stage: gives, for the name of a step, a function that is called with (steps done, steps in all).
      on_step: told of the state after each step, with the step's name. Weights are no integers yet.

    Returns:
      The parameters, after links have rescaled, corrected or rounded them; the parameters of the float
      network that the corrected ones imitate; and the quantizers' numbers.

    Raises:
      UserError: a link's name is unknown, the order of the links makes no sense, or a link finds nothing in
        this network that it could change.
    """
    links = find_links(chain)
    check_links(links, parts, specs)
    state, rounded = State(params, params, qparams), with_codes(specs, ())
    calibration = Calibration(parts, rounded, dict(sites), batches, chunk, seed, mesh)
    for step in group_links(links):
        name, shared = ", ".join(link.name for link in step), all(link.shares_images for link in step)
        images = calibration if shared else whole(calibration)
        state = _run(step, images._replace(progress=stage(name)), state)
        on_step(name, state)
    return state._replace(params=encode_weights(specs, state.params, state.qparams))


def _run(step: Sequence[Link], calibration: Calibration, state: State) -> State:
    layer_links = [link for link in step if isinstance(link, LayerLink)]
    if layer_links:
        return walk(layer_links, calibration, state)
    for link in step:
        if isinstance(link, NetworkLink):
            state = link(calibration, state)
    return state
