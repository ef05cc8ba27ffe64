"""A linear layer with what layer links are given, in numpy, and what they make of it."""

import jax.numpy as jnp
import numpy as np

from evolq_jax.calibration.layer import Layer, Moments
from evolq_jax.calibration.link import LayerLink
from evolq_jax.calibration.links.ridge import RIDGE, RidgeConfig
from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.observers.of_weight import weight_qparams
from evolq_jax.quant.quantizers.base import fake_quant
from evolq_jax.quant.spec import QuantSpec
from tests.numbers import width

TOKENS, IN, OUT = 400, 24, 10
SPEC = QuantSpec(per_channel=True, observer=OBSERVERS["omse"])


class LayerProblem:
    """A layer whose input is correlated and noisy, with an output wanted that the clean input gives."""

    def __init__(self, noise: float = 0.1, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        clean = rng.standard_normal((TOKENS, 6)) @ rng.standard_normal((6, IN)) + rng.standard_normal(IN)
        self.weight = rng.standard_normal((IN, OUT)) / np.sqrt(IN)
        self.bias = rng.standard_normal(OUT)
        self.x = clean + noise * rng.standard_normal(clean.shape)
        self.target = clean @ self.weight + self.bias
        sums = len(self.x), self.x.sum(0), self.target.sum(0), self.x.T @ self.x, self.x.T @ self.target
        self.moments = Moments(*(jnp.asarray(s, jnp.float32) for s in sums))
        weight = jnp.asarray(self.weight, jnp.float32)
        self.layer = Layer(
            weight, jnp.asarray(self.bias, jnp.float32), weight_qparams(SPEC, width(3, 2), weight)
        )

    def error(self, layer: Layer) -> float:
        """Of the layer's output with its weight as it is."""
        return float(((self.x @ np.asarray(layer.weight) + np.asarray(layer.bias) - self.target) ** 2).mean())

    def changed(self, link: LayerLink, layer: Layer, damping: float = 0.01) -> Layer:
        """The layer as a link leaves it."""
        spec = SPEC if layer.site_qparams is not None else None
        settings = RidgeConfig(damping) if link is RIDGE else link.settings
        return link.function(spec, self.moments, layer, settings)

    def rounded(self, layer: Layer) -> Layer:
        assert layer.site_qparams is not None
        return layer._replace(weight=fake_quant(SPEC, layer.site_qparams, layer.weight))
