"""The link `smooth`: moves difficulty from an activation's channels into the weight that reads them.

SmoothQuant (Xiao et al., 2211.10438, equation 4) divides channel k of a linear layer's input by a factor, and
multiplies row k of its weight by it. The factor balances the largest value of the channel against that of its
weights. The factors are folded into what makes the activation, so they do not appear in the integers.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.calibration.link import CHANNELS, Calibration, NetworkLink, NotAfter, State
from evolq_jax.calibration.links.fold import changed_weights, rescale, with_ranges
from evolq_jax.calibration.links.ranges import RangesConfig
from evolq_jax.network.chunks import largest_divisor
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.sites import is_stacked, observe
from evolq_jax.quant.observers.of_weight import weight_qparams
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import fake_quant
from evolq_jax.quant.sites import fake_quant_weight
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.trees import flatten
from evolq_jax.typing import Array, Params

# Exponents (of the activation's largest values, of the weight's); SmoothQuant has them sum to one.
EXPONENTS = tuple((a, w) for a in (0.0, 0.25, 0.5, 0.75, 1.0) for w in (0.0, 0.25, 0.5))
ROWS = 1024  # tokens, over all images, that an activation's candidates are scored on
MAX_FACTOR = 2.0**8


def smooth(calibration: Calibration, state: State, settings: RangesConfig) -> State:
    """Rescales channels wherever this can be folded and lowers the error of the layers that read them.

    Candidates are powers of the ratio between the largest values of a channel and of its weights (see
    `factors`). They are compared by the squared error of the readers' outputs, with activation and weights
    quantized, on a sample of the calibration tokens. If none is better, a block's channels stay as they are.

    Returns:
      The state. Makers and readers are rescaled, in the reference too. Scales are those with which candidates
      were compared. The ranges of what lies between makers and readers are found anew.
    """
    table = dict(calibration.specs)
    entries = [entry for entry in calibration.parts.channels if _is_uniform(table.get(entry.site))]
    if not entries:
        return state
    samples = _sample(calibration, [entry.site for entry in entries], state.params)
    qparams, leaves, rescaled = dict(state.qparams), flatten(state.params), []
    for done, entry in enumerate(entries):
        read = Read(table[entry.site], tuple(table.get(f"{reader}/weight") for reader in entry.readers))
        weights = tuple(leaves[f"{reader}/weight"] for reader in entry.readers)
        current = tuple(state.qparams.get(f"{reader}/weight") for reader in entry.readers)
        stacked, own = is_stacked(calibration.parts, entry.site), state.qparams[entry.site]
        lead = own.scale.shape[: int(stacked)]
        flat = jax.tree.map(lambda leaf, lead=lead: leaf.reshape(*lead, 1, leaf.shape[-1]), own)
        best = _best_of_each if stacked else _best_of_one
        factor, found = best(read, samples[entry.site], weights, Found(flat, current))
        qparams[entry.site] = jax.tree.map(lambda new, old: new.reshape(old.shape), found, own)
        factor = factor.reshape(*own.scale.shape[:-1], -1)
        rescaled.append((entry, factor, jnp.zeros_like(factor)))
        calibration.progress(done + 1, len(entries))
    state = rescale(state._replace(qparams=qparams), rescaled)
    between = {name for entry in entries for name in entry.between}  # activations that these channels pass
    return with_ranges(calibration, state, changed_weights(entries) | between, settings)


def _is_uniform(spec: QuantSpec | None) -> bool:
    return spec is not None and spec.quantizer.equal_steps


class Read(NamedTuple):
    """An activation's quantizer, and those of the weights that read it (None: float). Static."""

    activation: QuantSpec
    readers: tuple[QuantSpec | None, ...]


class Found(NamedTuple):
    """The numbers of an activation's quantizer ([1, 1] or [1, K]), and of its readers'."""

    activation: SiteQParams
    readers: tuple[SiteQParams | None, ...]


class Sample(NamedTuple):
    """Some of an activation's rows, and each channel's ends over all tokens."""

    rows: Array  # [(L,) T, K]
    low: Array  # [(L,) 1, K]
    high: Array  # [(L,) 1, K]


def _sample(calibration: Calibration, names: Sequence[str], params: Params) -> dict[str, Sample]:
    """Rows of activations [.., K] over all images, a stride apart, with their channels' ends."""
    images = jnp.concatenate(list(calibration.batches))
    size = largest_divisor(images.shape[0], calibration.chunk)
    strides: list[tuple[str, int]] = []
    for name in names:
        tokens = math.prod(calibration.sites[name].shape[:-1])
        stride = max(1, tokens * images.shape[0] // ROWS)
        while math.gcd(stride, tokens) > 1:  # else every image would give the same few positions
            stride += 1
        strides.append((name, stride))
    return _observed(calibration.parts, tuple(strides), params, images, size=size)


@partial(jax.jit, static_argnames=("parts", "strides", "size"))
def _observed(
    parts: ModelParts, strides: tuple[tuple[str, int], ...], params: Params, images: Array, *, size: int
) -> dict[str, Sample]:
    table = dict(strides)

    def rows(name: str, x: Array, _: None) -> Sample:
        x = x.reshape(-1, x.shape[-1])
        return Sample(x[:: table[name]], x.min(0, keepdims=True), x.max(0, keepdims=True))

    chunks = images.reshape(-1, size, *images.shape[1:])
    found = jax.lax.map(lambda x: observe(parts, rows, params, x, stats=dict.fromkeys(table)), chunks)

    def merge(leaf: Array) -> Array:  # [chunks, (L,) rows, K] -> [(L,) chunks * rows, K]
        leaf = jnp.moveaxis(leaf, 0, -3)
        return leaf.reshape(*leaf.shape[:-3], -1, leaf.shape[-1])

    return {name: Sample(merge(x.rows), x.low.min(0), x.high.max(0)) for name, x in found.items()}


def factors(exponents: Array, low: Array, high: Array, weights: Sequence[Array]) -> Array:
    """`a^e0 / w^e1` for each channel, with geometric mean 1. With both exponents 0 it is 1.

    `a` [1, K] is the activation's largest value, and `w` that of the rows of the weights [K, out].
    """
    a = jnp.maximum(-low, high)[0]
    w = jnp.max(jnp.stack([jnp.abs(weight).max(-1) for weight in weights]), 0)
    logs = [jnp.log(jnp.maximum(v, v.max() / MAX_FACTOR**2 + 1e-12)) for v in (a, w)]
    log = exponents[0] * logs[0] - exponents[1] * logs[1]
    limit = math.log(MAX_FACTOR)
    return jnp.exp(jnp.clip(log - log.mean(), -limit, limit))[None]


@partial(jax.jit, static_argnames=("read",))
def _best_of_one(
    read: Read, sample: Sample, weights: tuple[Array, ...], current: Found
) -> tuple[Array, SiteQParams]:
    """`best_of_block` outside the blocks."""
    return best_of_block(read, sample, weights, current)


@partial(jax.jit, static_argnames=("read",))
def _best_of_each(
    read: Read, sample: Sample, weights: tuple[Array, ...], current: Found
) -> tuple[Array, SiteQParams]:
    """`best_of_block` of every block of a segment: factors [L, 1, K]."""

    def one(block: tuple[Sample, tuple[Array, ...], Found]) -> tuple[Array, SiteQParams]:
        sample, weights, current = block
        return best_of_block(read, sample, weights, current)

    return jax.lax.map(one, (sample, weights, current))


def best_of_block(
    read: Read, sample: Sample, weights: tuple[Array, ...], current: Found
) -> tuple[Array, SiteQParams]:
    """The best candidate for one activation and its readers. If none is better: factors of 1 and `current`.

    Args:
      read: the quantizers.
      sample: rows of the activation and its channels' ends.
      weights: the readers', [K, out] each.
      current: the quantizers' numbers as they are.

    Returns:
      Factors [1, K], and the numbers of the activation's quantizer that go with them.
    """
    rows, low, high = sample
    spec, wanted = read.activation, [rows @ weight for weight in weights]

    def quantizers(factor: Array) -> Found:
        ends = (low / factor, high / factor) if spec.observer.keeps_extremes else ()
        observed = jnp.concatenate([rows / factor, *ends])
        scaled = [factor[0][:, None] * weight for weight in weights]
        own = [
            None if s is None or now is None else weight_qparams(s, now.bits, w)
            for s, now, w in zip(read.readers, current.readers, scaled, strict=True)
        ]
        return Found(weight_qparams(spec, current.activation.bits, observed), tuple(own))

    def error(factor: Array, found: Found) -> Array:
        x, total = fake_quant(spec, found.activation, rows / factor), jnp.float32(0)
        per_reader = zip(read.readers, found.readers, weights, wanted, strict=True)
        for reader, site_qparams, weight, target in per_reader:
            weight = factor[0][:, None] * weight
            if reader is not None and site_qparams is not None:
                weight = fake_quant_weight(reader, site_qparams, weight)
            total += ((x @ weight - target) ** 2).sum()
        return total

    def candidate(exponents: Array) -> tuple[Array, Array, SiteQParams]:
        factor = factors(exponents, low, high, weights)
        found = quantizers(factor)
        return error(factor, found), factor, found.activation

    errors, candidates, found = jax.lax.map(candidate, jnp.asarray(EXPONENTS, jnp.float32)[1:])
    best = jnp.argmin(errors)
    unchanged = jnp.ones_like(candidates[0])
    better = errors[best] < error(unchanged, current)
    return jax.tree.map(
        lambda new, old: jnp.where(better, new[best], old),
        (candidates, found),
        (unchanged, current.activation),
    )


SMOOTH = NetworkLink(
    "smooth",
    "balances an activation's channels against the weights that read them",
    smooth,
    settings=RangesConfig(),
    changes_params=True,
    not_after=NotAfter(
        lambda earlier: earlier.corrects or earlier.rounds or earlier.name in ("fold", "clip", "own_output"),
        "finds ranges anew, which would undo what came before",
    ),
    needs=(CHANNELS,),
)
