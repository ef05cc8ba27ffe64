"""How fast this machine is, by short measurements, and the seconds that counted work takes on it."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.devices.compile_cache import unused
from evolq_jax.devices.work import Work, count_work
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.work import forward_work
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.typing import Array

BATCHES = 3  # that are timed at once
ROUNDINGS = 20  # of the largest weight; each takes some milliseconds


class Speed(NamedTuple):
    """What was measured.

    Attributes:
      floating: images a second through the float network.
      quantized: images a second through the quantized one.
      products: floating-point operations a second in its matrix products.
      elements: numbers a second that all other operations give.
      compiling: seconds that the float network's program takes to compile.
      size: of that program, the operations that are compiled on their own.
    """

    floating: float
    quantized: float
    products: float
    elements: float
    compiling: float
    size: int

    def seconds(self, work: Work) -> float:
        """How long work takes, without compiling."""
        return work.products / self.products + work.elements / self.elements

    def seconds_to_compile(self, programs: tuple[int, ...]) -> float:
        """How long programs of these sizes take to compile. Four times the size takes twice as long."""
        return self.compiling * float(np.sqrt(np.asarray(programs) / self.size).sum())


def measure_speed(setup: Setup, batch: int) -> Speed:
    """Times both networks on random images, `batch` at once, and the rounding of a weight."""
    quantized = QuantizedNetwork(setup.model, setup.model.params, _any_scales(setup), setup.specs)
    with unused():  # a plan is for a first run
        compiling, floating = _rate(partial(compute_logits, setup.model), setup, batch)
    _, fake_quantized = _rate(partial(compute_logits, quantized), setup, batch)
    elements = _element_rate(setup)
    work = forward_work(setup, batch, quantized=False)
    in_products = batch / floating - work.elements / elements
    products = work.products / max(in_products, batch / floating / 2)  # elements are fused; half is the least
    return Speed(floating, fake_quantized, products, elements, compiling, work.programs[0])


def _rate(logits: Callable[[np.ndarray, int], np.ndarray], setup: Setup, batch: int) -> tuple[float, float]:
    """Seconds to compile, and images a second without what a call takes once."""
    shape = (BATCHES * batch, *setup.model.image_shape)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def seconds(number: int) -> float:
        began = time.monotonic()
        logits(pixels[: number * batch], batch)
        return time.monotonic() - began

    first, one, all_of_them = seconds(1), seconds(1), seconds(BATCHES)
    per_batch = max(all_of_them - one, 1e-9) / (BATCHES - 1)
    return max(first - one, 0.0), batch / per_batch


def _any_scales(setup: Setup) -> dict[str, SiteQParams]:
    """Scales of one. Which they are makes no difference to the time."""
    return {name: own._replace(scale=jnp.ones_like(own.scale)) for name, own in setup.blank_qparams.items()}


def _element_rate(setup: Setup) -> float:
    """Numbers a second, of the errors of a weight rounded to several steps, as observers compare them."""
    sizes = [leaf.shape[-2:] for leaf in jax.tree.leaves(setup.model.params) if leaf.ndim > 2]
    weight = jnp.ones(max(sizes, key=np.prod, default=(256, 256)))

    @jax.jit
    def errors(weight: Array, steps: Array) -> Array:
        def error(step: Array) -> Array:
            rounded = jnp.clip(jnp.round(weight / step), -8, 7) * step
            return ((rounded - weight) ** 2).sum(0)

        return jax.lax.map(error, steps)

    steps = jnp.linspace(0.1, 1.0, ROUNDINGS)
    jax.block_until_ready(errors(weight, steps))
    began = time.monotonic()
    jax.block_until_ready(errors(weight, steps))
    return count_work(errors, weight, steps).elements / (time.monotonic() - began)
