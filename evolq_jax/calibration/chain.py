"""Calibration: the first scales of a network, by a chain of initialisers.

A link takes the fixed surroundings (`Calibration`) and a `State`, and gives a new state. No link uses
labels or evaluation images.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

from evolq_jax.calibration.layerwise import LAYERWISE, LINKS, walk
from evolq_jax.calibration.link import Calibration, Initialiser, Progress, State, whole
from evolq_jax.calibration.links.block_linear import block_linear
from evolq_jax.calibration.links.clip import clip
from evolq_jax.calibration.links.fold import fold
from evolq_jax.calibration.links.ranges import ranges
from evolq_jax.calibration.links.smooth import smooth
from evolq_jax.calibration.reconstruction.walk import reconstruct
from evolq_jax.errors import UserError, suggestion
from evolq_jax.network.parts import ModelParts
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import encode_weights
from evolq_jax.quant.spec import with_codes
from evolq_jax.typing import Params

FOLDING: dict[str, Initialiser] = {"fold": fold, "smooth": smooth}  # links that rescale channels
# Links that see the whole network at once.
WHOLE: dict[str, Initialiser] = {
    "ranges": ranges,
    **FOLDING,
    "clip": clip,
    "brecq": reconstruct,
    "block_linear": block_linear,
}
INITIALISERS = (*WHOLE, *LAYERWISE)
CORRECTING = ("brecq", *LINKS)  # links that change parameters
SHARED_OUT = ("ranges", "fold", *LAYERWISE)  # links of which every device of several runs its images' share
ROUNDING = ("gptq", "brecq")  # links that leave weights on their grid: the integers of all are decided then
# Each link, those that it must not follow, and what it would do there.
UNDOES: dict[str, tuple[tuple[str, ...], str]] = {
    "ranges": (INITIALISERS, "finds all ranges anew, which would undo what came before"),
    "smooth": (("fold", "clip", *LAYERWISE, "brecq"), "finds ranges anew, which would undo what came before"),
    "fold": (("clip", *LAYERWISE, "brecq"), "finds weight ranges anew, which would undo what came before"),
    "clip": (ROUNDING, "would change the ranges that weights have been rounded to"),
    "own_output": (ROUNDING, "would change the ranges that weights have been rounded to"),
    "ridge": (("own_output", *ROUNDING), "finds weight ranges anew, which would undo what came before"),
    "gptq": (ROUNDING, "rounds weights that have been rounded"),
    "brecq": (ROUNDING, "rounds weights that have been rounded"),
}


def initialise(
    chain: Sequence[str],
    calibration: Calibration,
    params: Params,
    stage: Callable[[str], Progress] = lambda name: lambda done, total: None,
) -> tuple[Params, QParams]:
    """Runs the links of `chain` in order, starting from the float parameters and no scales.

    Neighbouring layer-wise links share one walk through the network. Links work on weights; those whose
    spec says `codes` become integers at the end, which is exact where a link left them on their grid.

    Args:
      chain: names from `INITIALISERS`.
      calibration: network, quantizers, images and settings.
      params: float parameters.
      stage: gives, for the name of a step of the chain, what is told its progress.

    Returns:
      The parameters, changed where links fold, compensate or round, and their scales.

    Raises:
      UserError: a link's name is unknown, or there is nothing in this network that it could correct.
    """
    check_chain(chain, calibration.parts)
    state, rounded = State(params, params, {}), with_codes(calibration.specs, ())
    for name, link in _links(chain):
        images = calibration if name.split(", ")[0] in SHARED_OUT else whole(calibration)
        state = link(images._replace(specs=rounded, progress=stage(name)), state)
    return encode_weights(calibration.specs, state.params, state.qparams), state.qparams


def check_chain(chain: Sequence[str], parts: ModelParts) -> None:
    """Finds out before anything is computed whether a chain can run on a network.

    Raises:
      UserError: a link's name is unknown, links stand in an order that makes no sense, or there is nothing
        in this network that one could change.
    """
    check_order(chain)
    for name in chain:
        if name in FOLDING and not parts.channels:
            raise UserError(
                f"initialiser '{name}' rescales what linear layers read after a LayerNorm (ViT, DeiT, Swin); "
                "this network names none: leave it out of calibration.chain"
            )
        if name == "block_linear" and not parts.roles.residual:
            raise UserError(
                "initialiser 'block_linear' adds to a residual stream in float (ViT, DeiT, Swin, LeViT); "
                "this network quantizes what its blocks give: leave it out of calibration.chain"
            )
        if name in LAYERWISE and not any(segment.linears for segment in parts.segments):
            raise UserError(
                f"initialiser '{name}' corrects the layers that a family names (`Segment.linears`); this "
                "network names none: leave it out of calibration.chain"
            )


def check_order(chain: Sequence[str]) -> None:
    """Refuses chains in which a link would undo or could not see what another has done.

    Raises:
      UserError: a link's name is unknown, `ranges` is not first, or a link comes after `block_linear` or
        after one that it must not follow (`UNDOES`).
    """
    for name in chain:
        if name not in INITIALISERS:
            raise UserError(
                f"calibration.chain has the unknown initialiser '{name}'{suggestion(name, INITIALISERS)} "
                f"(known: {', '.join(INITIALISERS)})"
            )
    if tuple(chain[:1]) != ("ranges",):
        raise UserError("calibration.chain is empty or begins otherwise: `ranges` comes first")
    if "block_linear" in chain[:-1]:
        after = chain[list(chain).index("block_linear") + 1]
        raise UserError(
            f"calibration.chain has '{after}' after 'block_linear', which makes up for what others leave: "
            "put 'block_linear' last"
        )
    for position, name in enumerate(chain):
        earlier, reason = UNDOES.get(name, ((), ""))
        for before in (link for link in chain[:position] if link in earlier):
            remedy = "leave one out" if name == before else f"put '{name}' before '{before}'"
            raise UserError(f"calibration.chain has '{name}' after '{before}': it {reason}; {remedy}")


def _links(chain: Sequence[str]) -> list[tuple[str, Initialiser]]:
    links: list[tuple[str, Initialiser]] = []
    for layerwise, names in groupby(chain, key=lambda name: name in LAYERWISE):
        group = tuple(names)
        if layerwise:
            links.append((", ".join(group), partial(walk, group)))
        else:
            links += [(name, WHOLE[name]) for name in group]
    return links
