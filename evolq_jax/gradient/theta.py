"""What the optimiser moves, and the scales that it stands for."""

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
    """What stands for `qparams` themselves, the start: of all blocks at once, in the search's spaces."""
    theta: Theta = {}
    for segment, space in _spaces(loss).items():
        solution = space.encode_blocks(scope(qparams, segment))
        theta |= {f"{segment}/{site}": value for site, value in solution.items()}
    return theta


def decode(loss: ScaleLoss, theta: Theta, start: QParams) -> QParams:
    """All scales, with those that `theta` stands for put in; zero points stay."""
    if loss.parametrization == "raw":
        theta = {site: jnp.maximum(jnp.abs(value), SMALLEST) for site, value in theta.items()}
    qparams = dict(start)
    for segment, space in _spaces(loss).items():
        solution = {site: theta[f"{segment}/{site}"] for site in space.sites}
        moved = jax.vmap(space.decode, in_axes=(0, 0, None))(solution, scope(start, segment), 1.0)
        qparams |= {f"{segment}/{site}": moved[site] for site in space.sites}
    return qparams


def _spaces(loss: ScaleLoss) -> dict[str, SearchSpace]:
    """Of every segment in which scales descend."""
    segments = dict.fromkeys(site.split("/")[0] for site in loss.sites)
    sites, kind = loss.sites, loss.parametrization
    return {segment: make_space(sites, sites, kind, segment, specs=loss.specs) for segment in segments}
