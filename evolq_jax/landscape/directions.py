"""Directions in scale space, and the points along them.

A direction has an array of the scale's shape for every site that moves. Along axes in the logarithm a scale
is multiplied by `exp(t d)`. Along the other axes `t d` is added: `|scale exp(sum t d) + sum t d|`. The
absolute value keeps scales positive; the paper reflects its mutations at zero in the same way.
"""

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.errors import UserError
from evolq_jax.landscape.config import DirectionName
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.sites import is_stacked
from evolq_jax.quant.qparams import QParams
from evolq_jax.typing import Array

Directions = dict[str, Array]  # site -> [M, *scale.shape]: M directions

RANDOM: tuple[DirectionName, ...] = ("uniform", "gaussian", "filter")
IN_LOGARITHM: tuple[DirectionName, ...] = ("gaussian", "ratio", "principal")
SMALLEST = 1e-12  # a scale that lands on zero
ROUNDING = 1e-6  # of the logarithm of a ratio of equal scales


class Points(NamedTuple):
    """Grid points, A coordinates each; arrays lead with the number of points P (or lack that axis)."""

    coordinates: Array  # float32 [P, A]
    directions: Array  # int32 [P, A], which of the M directions each coordinate is along
    site: Array  # int32 [P], the only site that moves, counted in sorted order; -1: all
    block: Array  # int32 [P], the only block that moves; -1: all


@partial(jax.jit, static_argnames=("parts", "name", "count"))
def random_directions(
    parts: ModelParts,
    origin: QParams,
    key: Array,
    *,
    name: DirectionName,
    count: int,
    epsilon: Array | float,
) -> Directions:
    """Independent random directions of the sites in `origin`. The key is consumed.

    A site's numbers depend only on the key and on the site's name, not on what else moves.

    Args:
      parts: the network; it tells which sites are stacked.
      origin: the start; only the sites that move.
      key: PRNG key.
      name: `uniform`: U(-epsilon, epsilon). `gaussian`: epsilon N(0, 1), for the logarithm. `filter`: normal;
        the norm of each site in each block is epsilon times the norm of its scales. Li et al. (2018, section
        4) do this by filters. Our unit is a quantizer, that is all scales of one site.
      count: M, the number of directions.
      epsilon: size (traced).
    """

    def one_site(site: str, scale: Array) -> Array:
        site_key = jax.random.fold_in(key, zlib.crc32(site.encode()))
        shape = (count, *scale.shape)
        if name == "uniform":
            return epsilon * jax.random.uniform(site_key, shape, minval=-1.0, maxval=1.0)
        normal = jax.random.normal(site_key, shape)
        if name == "gaussian":
            return epsilon * normal
        inner = tuple(range(int(is_stacked(parts, site)), scale.ndim))
        outer = tuple(axis + 1 for axis in inner)
        wanted = jnp.sqrt(jnp.sum(scale**2, inner, keepdims=True))
        return epsilon * wanted * normal / jnp.sqrt(jnp.sum(normal**2, outer, keepdims=True))

    return {site: one_site(site, site_qparams.scale) for site, site_qparams in origin.items()}


def ratio_direction(origin: QParams, epsilon: float) -> Directions:
    """Multiplies all scales by one ratio, `exp(epsilon)` at coordinate 1: M = 1, in the logarithm."""
    return {site: jnp.full((1, *site_qparams.scale.shape), epsilon) for site, site_qparams in origin.items()}


def between(origin: QParams, end: QParams) -> Directions:
    """The straight line from `origin` (0) to `end` (1), as in Goodfellow et al. 2015: M = 1."""
    return {site: (end[site].scale - site_qparams.scale)[None] for site, site_qparams in origin.items()}


def principal_directions(
    origin: QParams, points: Mapping[str, Array], count: int
) -> tuple[Directions, Array]:
    """The first principal directions of points around the origin (Li et al. 2018, section 7).

    They are computed from differences of logarithms to the origin, not to the points' mean. The length of a
    direction is the root mean square of the points along it. Its largest component is positive.

    Args:
      origin: only the sites that move.
      points: site -> scales of all points, stacked: [points, *scale.shape]. A search records only its end.
        Take the ends of several runs, or record scales in a search of your own.
      count: M, the number of directions; at most the number of points.

    Returns:
      The directions, and for each the share [M] of the points' squared distance along it.

    Raises:
      UserError: there are fewer points than directions, or no point differs from the origin.
    """
    number = next(iter(points.values())).shape[0]
    if number < count:
        raise UserError(f"{count} principal directions need as many points, and there are {number}")
    moves = {site: jnp.log(points[site] / site_qparams.scale) for site, site_qparams in origin.items()}
    matrix = jnp.concatenate([leaf.reshape(number, -1) for leaf in moves.values()], axis=1)
    _, singular, rows = jnp.linalg.svd(matrix, full_matrices=False)
    if not jnp.max(jnp.abs(matrix)) > ROUNDING:
        raise UserError("the points of the principal directions do not differ from the origin")
    rows = rows * jnp.sign(jnp.take_along_axis(rows, jnp.argmax(jnp.abs(rows), 1)[:, None], 1))
    rows = (rows * singular[:, None] / jnp.sqrt(number))[:count]
    sizes = [leaf[0].size for leaf in moves.values()]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    parts = jnp.split(rows, ends, axis=1)
    directions = {
        site: part.reshape(count, *leaf.shape[1:])
        for (site, leaf), part in zip(moves.items(), parts, strict=True)
    }
    return directions, (singular**2 / jnp.sum(singular**2))[:count]


def keep_blocks(parts: ModelParts, directions: Directions, blocks: Sequence[int]) -> Directions:
    """The directions with zeros outside these blocks, without the sites that are in no block."""
    chosen = jnp.asarray(blocks)

    def masked(leaf: Array) -> Array:
        mask = jnp.isin(jnp.arange(leaf.shape[1]), chosen)
        return leaf * mask.reshape(-1, *(1,) * (leaf.ndim - 2))

    return {site: masked(leaf) for site, leaf in directions.items() if is_stacked(parts, site)}


def scales_at(
    parts: ModelParts, origin: QParams, directions: Directions, point: Points, *, log: Sequence[bool]
) -> QParams:
    """All scales of the network at one point.

    Args:
      parts: the network; it tells which sites are stacked.
      origin: all scales.
      directions: of the sites that move.
      point: one point; its arrays lack the P axis.
      log: for each axis, whether it is in the logarithm (static).
    """
    moved = _signed(parts, origin, directions, point, log=log)
    positive = {site: jnp.maximum(jnp.abs(scale), SMALLEST) for site, scale in moved.items()}
    return origin | {site: origin[site]._replace(scale=scale) for site, scale in positive.items()}


@partial(jax.jit, static_argnames=("parts", "log"))
def reflected_share(
    parts: ModelParts, origin: QParams, directions: Directions, points: Points, *, log: tuple[bool, ...]
) -> Array:
    """The share of moving scales that the absolute value made positive: the largest over the points."""

    def share(point: Points) -> Array:
        leaves = jax.tree.leaves(_signed(parts, origin, directions, point, log=log))
        return jnp.mean(jnp.concatenate([leaf.ravel() <= 0 for leaf in leaves]))

    return jnp.max(jax.lax.map(share, points))


def _signed(
    parts: ModelParts, origin: QParams, directions: Directions, point: Points, *, log: Sequence[bool]
) -> dict[str, Array]:
    """The moving sites' scales before the absolute value is taken."""
    moved: dict[str, Array] = {}
    for number, site in enumerate(sorted(directions)):
        scale = origin[site].scale
        mask = (point.site < 0) | (point.site == number)
        if is_stacked(parts, site):
            here = (point.block < 0) | (jnp.arange(scale.shape[0]) == point.block)
            mask = mask & here.reshape(-1, *(1,) * (scale.ndim - 1))
        factor, shift = jnp.zeros_like(scale), jnp.zeros_like(scale)
        for axis, in_logarithm in enumerate(log):
            along = directions[site][point.directions[axis]]
            step = jnp.where(mask, point.coordinates[axis] * along, 0.0)
            factor, shift = (factor + step, shift) if in_logarithm else (factor, shift + step)
        moved[site] = scale * jnp.exp(factor) + shift
    return moved
