"""What the optimiser moves (theta), and how it stands for scales."""

import jax
import jax.numpy as jnp

from evolq_jax.gradient.problem import ScaleLoss
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import scope
from evolq_jax.search.space import SearchSpace, make_space
from evolq_jax.typing import Array

SMALLEST = 1e-12  # of a raw scale that lands on zero

Theta = dict[str, Array]  # by site, a leading L axis on every leaf


def encode(loss: ScaleLoss, qparams: QParams) -> Theta:
    """The theta of the start, whose scales are in `qparams`. It has all blocks of every segment."""
    theta: Theta = {}
    for segment, space in _spaces(loss).items():
        solution = space.encode_blocks(scope(qparams, segment))
        theta |= {f"{segment}/{site}": value for site, value in solution.items()}
    return theta


def decode(loss: ScaleLoss, theta: Theta, start: QParams) -> QParams:
    """The numbers of all sites, with the scales of `theta` in place of the start's. Zero points stay."""
    if loss.parametrization == "raw":
        theta = {site: jnp.maximum(jnp.abs(value), SMALLEST) for site, value in theta.items()}
    qparams = dict(start)
    for segment, space in _spaces(loss).items():
        solution = {site: theta[f"{segment}/{site}"] for site in space.sites}
        moved = jax.vmap(space.decode, in_axes=(0, 0, None))(solution, scope(start, segment), 1.0)
        qparams |= {f"{segment}/{site}": moved[site] for site in space.sites}
    return qparams


def _spaces(loss: ScaleLoss) -> dict[str, SearchSpace]:
    """The search space of each segment whose scales move."""
    segments = dict.fromkeys(site.split("/")[0] for site in loss.sites)
    sites, kind = loss.sites, loss.parametrization
    return {segment: make_space(sites, sites, kind, segment, specs=loss.specs) for segment in segments}
