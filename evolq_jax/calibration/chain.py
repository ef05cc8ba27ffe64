"""The calibration chain: its links by name, and the rules for their order."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from evolq_jax.calibration.link import Cost, LayerLink, Link
from evolq_jax.calibration.links.bias import BIAS
from evolq_jax.calibration.links.block_linear import BLOCK_LINEAR
from evolq_jax.calibration.links.clip import CLIP
from evolq_jax.calibration.links.fold import FOLD
from evolq_jax.calibration.links.gptq import GPTQ
from evolq_jax.calibration.links.own_output import OWN_OUTPUT
from evolq_jax.calibration.links.ranges import RANGES
from evolq_jax.calibration.links.ridge import RIDGE
from evolq_jax.calibration.links.smooth import SMOOTH
from evolq_jax.calibration.reconstruction.brecq import BRECQ
from evolq_jax.errors import UserError
from evolq_jax.named import find
from evolq_jax.network.parts import ModelParts
from evolq_jax.quant.spec import Specs, with_codes
from evolq_jax.typing import SiteInfo

LINKS: dict[str, Link] = {
    link.name: link
    for link in (RANGES, SMOOTH, FOLD, CLIP, RIDGE, OWN_OUTPUT, GPTQ, BIAS, BRECQ, BLOCK_LINEAR)
}

CORRECTED = ("ranges", "ridge", "gptq", "bias")  # the best known chain (docs/results.md)


def find_links(chain: Iterable[str | Link]) -> tuple[Link, ...]:
    """The links of a chain. The chain has names or link objects.

    Raises:
      UserError: a name is unknown.
    """
    return tuple(find(link, LINKS, "calibration.chain has the unknown initialiser") for link in chain)


def check_chain(links: Sequence[Link]) -> None:
    """Refuses chains in which a link would undo the work of another, or could not see it.

    Raises:
      UserError: the chain does not begin with a link that can be `first`, or a link comes after one that is
        `last` or that it must not follow.
    """
    if not links or not links[0].first:
        raise UserError("calibration.chain is empty or begins otherwise: `ranges` comes first")
    for link, after in pairwise(links):
        if link.last:
            raise UserError(
                f"calibration.chain has '{after.name}' after '{link.name}', which makes up for what others "
                f"leave: put '{link.name}' last"
            )
    for position, link in enumerate(links):
        for before in links[:position]:
            if link.not_after is not None and link.not_after.forbids(before):
                never = before.not_after is not None and before.not_after.forbids(link)
                remedy = "leave one out" if never else f"put '{link.name}' before '{before.name}'"
                raise UserError(
                    f"calibration.chain has '{link.name}' after '{before.name}': it "
                    f"{link.not_after.because}; {remedy}"
                )


def check_links(links: Sequence[Link], parts: ModelParts, specs: Specs) -> None:
    """Finds out, before anything is computed, whether links can run on a network.

    Raises:
      UserError: the order makes no sense, or a link finds nothing in this network that it could change.
    """
    check_chain(links)
    for link in links:
        for need in link.needs:
            if not need.is_met(parts):
                raise UserError(f"initialiser '{link.name}' {need.reason}: leave it out of calibration.chain")
        if link.check is not None:
            link.check(parts, specs, link.settings)


def group_links(links: Iterable[Link]) -> list[tuple[Link, ...]]:
    """The steps of a chain. Neighbouring layer links with the same walk are one step, with one walk."""
    steps: list[tuple[Link, ...]] = []
    for link in links:
        last = steps[-1][-1] if steps else None
        if isinstance(link, LayerLink) and isinstance(last, LayerLink) and link.walk == last.walk:
            steps[-1] += (link,)
        else:
            steps.append((link,))
    return steps


def chain_cost(links: Iterable[Link], parts: ModelParts, specs: Specs, num_images: int) -> Cost:
    """The cost of those links of a chain that know it."""
    costs = [link.cost(parts, specs, link.settings, num_images) for link in links if link.cost is not None]
    return Cost(sum(cost.floating for cost in costs), sum(cost.quantized for cost in costs))


def specs_after(links: Iterable[Link], specs: Specs, sites: Mapping[str, SiteInfo]) -> Specs:
    """The quantizers after a chain. If a link rounds, the parameters hold the integers of all weights."""
    if not any(link.rounds for link in links):
        return specs
    return with_codes(specs, [name for name, info in sites.items() if info.is_weight])
