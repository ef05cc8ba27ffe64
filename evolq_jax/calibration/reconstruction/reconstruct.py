"""Reconstruction of one unit: the rounding of its weights and its activation steps, learned by gradients.

BRECQ (Li et al., 2102.05426): the squared error of the unit's output, plus AdaRound's regulariser, which
drives every weight to one of its two integers. QDrop (Wei et al., 2203.05740): in each step a random part
of the activations, of those that the unit receives too, is not quantized.
"""

import zlib
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from evolq_jax.calibration.reconstruction.config import BrecqConfig
from evolq_jax.calibration.reconstruction.units import Decided, Unit, Values, run_unit
from evolq_jax.network.chunks import in_chunks
from evolq_jax.quant.gradients import Sharing, lsq_scaled
from evolq_jax.quant.learned_rounding import chosen_integers, rounding_logits, soft_quantize, undecided
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.quantizers.base import fake_quant
from evolq_jax.quant.sites import FloatSite, QuantSite, fake_quant_weights
from evolq_jax.quant.spec import Specs
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params

SMALLEST_ERROR = 1e-20  # of a unit that loses nothing


@dataclass(frozen=True)
class UnitProblem:
    """Static settings: one program for equal problems, as those of a segment's blocks are."""

    unit: Unit
    specs: Specs  # of the unit's scope
    weights: tuple[str, ...]  # whose rounding is learned
    sites: tuple[str, ...]  # whose step is learned
    sharing: Sharing  # of these sites (`quant.gradients`)
    chunk: int  # images run at once outside of steps; divides their number
    config: BrecqConfig


class UnitInput(NamedTuple):
    """What a unit is given, for all images [B, ...]."""

    quantized: Array  # by the network as quantized so far
    floating: Array  # by the float network


class UnitData(NamedTuple):
    """The arrays that a unit's optimisation works with."""

    block: Array  # its index, where the unit is one
    values: Values
    input: UnitInput
    wanted: Array  # the float unit's output [B, ...]
    importance: Array | None  # what its squared errors are weighed by [B, ...]; None: equally
    start: Array  # the error that the unit starts with: what errors are relative to


class Theta(NamedTuple):
    """What is learned, by name."""

    rounding: dict[str, Array]  # see `quant.learned_rounding`, of the weight's shape
    steps: dict[str, Array]  # logarithm of the factor on a site's scale; one number, so that ratios stay


class Learned(NamedTuple):
    """The state of the optimisation."""

    theta: Theta
    optimizer: Any


class Draw(NamedTuple):
    """What one step draws."""

    images: Array  # indices of the mini-batch
    number: Array  # of the step
    key: Array  # of the unit; what is dropped depends on it and the step's number


def begin(problem: UnitProblem, values: Values) -> Learned:
    """The start: soft weights equal to the float ones (within their range), steps as they are."""
    leaves = flatten(values.params)
    theta = Theta(
        {name: rounding_logits(values.qparams[name], leaves[name]) for name in problem.weights},
        {name: jnp.zeros(()) for name in problem.sites},
    )
    return Learned(theta, _optimizer(problem.config).init(theta))  # type: ignore[arg-type]


@partial(jax.jit, static_argnames=("total", "size", "steps"))
def mini_batches(total: int, size: int, steps: int, key: Array) -> Array:
    """Indices [steps, size] of images, each step's drawn anew without replacement; the key is consumed."""
    return jax.lax.map(lambda key: jax.random.permutation(key, total)[:size], jax.random.split(key, steps))


@partial(jax.jit, static_argnames=("problem",), donate_argnames=("learned",))
def learn(problem: UnitProblem, data: UnitData, learned: Learned, draw: Draw) -> Learned:
    """One step of Adam on a mini-batch; the buffers of `learned` are reused.

    A program of one step, and no loop over steps inside it: XLA's CPU backend runs gradients of convolutions
    inside loops tens of times slower.
    """
    config, images = problem.config, draw.images
    input_key, site_key = jax.random.split(jax.random.fold_in(draw.key, draw.number))
    x = _dropped(config.drop, input_key, data.input.quantized[images], data.input.floating[images])
    wanted = data.wanted[images]
    importance = None if data.importance is None else data.importance[images]

    def loss(theta: Theta) -> Array:
        make_site = partial(_DropSite, config.drop, site_key)
        qparams = lsq_scaled(problem.specs, problem.sharing, scaled(data.values.qparams, theta))
        site = QuantSite(dict(problem.specs), qparams)
        params = _soft_weights(problem, data.values, theta)
        output = run_unit(problem.unit, params, make_site(site), x)
        relative = weighted_error(output, wanted, importance) / jnp.maximum(data.start, SMALLEST_ERROR)
        return relative + _regulariser(config, theta, draw.number)

    gradient = jax.grad(loss)(learned.theta)
    updates, state = _optimizer(config).update(gradient, learned.optimizer, learned.theta)  # type: ignore[arg-type]
    return Learned(optax.apply_updates(learned.theta, updates), state)  # type: ignore[arg-type]


def decided(problem: UnitProblem, values: Values, theta: Theta) -> Decided:
    """Weights on the grid points decided for, exactly `(q - zero_point) * scale`, and the scales learned.

    Rounding these weights to nearest at their scales gives the integers q again.
    """
    leaves, specs = flatten(values.params), dict(problem.specs)
    weights = {}
    for name, v in theta.rounding.items():
        q = chosen_integers(specs[name], values.qparams[name], leaves[name], v)
        weights[name] = specs[name].quantizer.decode(specs[name], values.qparams[name], q)
    qparams = scaled(values.qparams, theta)
    return Decided(weights, {name: qparams[name] for name in problem.sites})


def nearest(problem: UnitProblem, values: Values) -> Decided:
    """What `decided` gives where nothing was learned: weights rounded to nearest, the scales as they are."""
    leaves, specs = flatten(values.params), dict(problem.specs)
    weights = {name: fake_quant(specs[name], values.qparams[name], leaves[name]) for name in problem.weights}
    return Decided(weights, {name: values.qparams[name] for name in problem.sites})


def outputs(problem: UnitProblem, values: Values, x: Array) -> Array:
    """The quantized unit's output [B, ...] on inputs [B, ...]."""
    quantized = fake_quant_weights(problem.specs, values.params, values.qparams)
    site = QuantSite(dict(problem.specs), values.qparams)
    return in_chunks(lambda x: run_unit(problem.unit, quantized, site, x), x, problem.chunk)


def weighted_error(output: Array, wanted: Array, importance: Array | None) -> Array:
    """The mean squared error, weighted."""
    squares = (output - wanted) ** 2
    return (squares if importance is None else squares * importance).mean()


def scaled(qparams: QParams, theta: Theta) -> QParams:
    """The scales with the learned factors on them: one for a site, so powers of two between channels stay."""
    changed = {
        name: qparams[name]._replace(scale=qparams[name].scale * jnp.exp(value))
        for name, value in theta.steps.items()
    }
    return qparams | changed


def _soft_weights(problem: UnitProblem, values: Values, theta: Theta) -> Params:
    leaves, specs = flatten(values.params), dict(problem.specs)
    soft = {
        name: soft_quantize(specs[name], values.qparams[name], leaves[name], v)
        for name, v in theta.rounding.items()
    }
    return unflatten(leaves | soft)


def _regulariser(config: BrecqConfig, theta: Theta, number: Array) -> Array:
    """AdaRound's, as a mean over the unit's weights; its power falls in a line after the warm-up."""
    if not theta.rounding:
        return jnp.zeros(())
    progress = (number / config.steps - config.warmup) / (1.0 - config.warmup)
    power = config.power_start + (config.power_end - config.power_start) * jnp.clip(progress, 0.0, 1.0)
    total = sum(undecided(v, power).sum() for v in theta.rounding.values())
    mean = total / sum(v.size for v in theta.rounding.values())
    return jnp.where(progress > 0, config.regulariser, 0.0) * mean


def _optimizer(config: BrecqConfig) -> optax.GradientTransformation:
    """Adam with a rate for each kind of number."""
    rates = {
        "rounding": optax.adam(config.rounding_rate),
        "steps": optax.adam(optax.cosine_decay_schedule(config.step_rate, config.steps)),
    }
    return optax.partition(rates, Theta("rounding", "steps"))  # type: ignore[arg-type]


def _dropped(probability: float, key: Array, quantized: Array, floating: Array) -> Array:
    """`floating` in random places; the probability is rounded to a 256th, which saves random bits."""
    threshold = round(256 * probability)
    if threshold == 0:
        return quantized
    bits = jax.random.bits(key, quantized.shape, jnp.uint8)
    return jnp.where(bits < threshold, floating, quantized)


@dataclass(frozen=True)
class _DropSite:
    """A quantized reading that leaves random elements in float."""

    probability: float
    key: Array
    site: QuantSite

    def __call__(self, name: str, x: Array) -> Array:
        return self._mixed(name, self.site(name, x), x)

    def layer_norm(self, name: str, source: str, x: Array, norm: Params, *, eps: float) -> Array:
        smooth = FloatSite().layer_norm(name, source, x, norm, eps=eps)
        return self._mixed(name, self.site.layer_norm(name, source, x, norm, eps=eps), smooth)

    def softmax(self, name: str, source: str, logits: Array) -> Array:
        return self._mixed(
            name, self.site.softmax(name, source, logits), FloatSite().softmax(name, source, logits)
        )

    def _mixed(self, name: str, quantized: Array, floating: Array) -> Array:
        if name not in self.site.specs:
            return quantized
        key = jax.random.fold_in(self.key, zlib.crc32(name.encode()))
        return _dropped(self.probability, key, quantized, floating)
