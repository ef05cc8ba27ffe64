"""A network at one point of scale space."""

from functools import partial
from typing import NamedTuple

import jax

from evolq_jax.network.reading import Reading, quantized_reading
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.sites import fake_quant_weights
from evolq_jax.quant.spec import Specs
from evolq_jax.typing import Params


class Quantized(NamedTuple):
    """A network at one point of scale space. `quantized` is `params` with fake-quantized weights."""

    params: Params
    quantized: Params
    qparams: QParams

    def reading(self, specs: Specs) -> Reading:
        """The quantized network as it runs."""
        return quantized_reading(specs, self.quantized, self.qparams)


def at_qparams(specs: Specs, params: Params, qparams: QParams) -> Quantized:
    """The network at `qparams`. A program would give back copies of what it is given: float weights twice."""
    return Quantized(params, quantize_weights(specs, params, qparams), qparams)


@partial(jax.jit, static_argnames=("specs",), inline=True)
def quantize_weights(specs: Specs, params: Params, qparams: QParams) -> Params:
    """`fake_quant_weights` as the one program that quantizes whole networks' weights."""
    return fake_quant_weights(specs, params, qparams)


def requantize(specs: Specs, network: Quantized, qparams: QParams) -> Quantized:
    """`network` at other `qparams`. It ends here: its quantized weights give their memory to the new ones."""
    quantized = _requantize_weights(specs, network.params, qparams, network.quantized)
    return network._replace(quantized=quantized, qparams=qparams)


@partial(jax.jit, static_argnames=("specs",), donate_argnames=("before",), keep_unused=True)
def _requantize_weights(specs: Specs, params: Params, qparams: QParams, before: Params) -> Params:
    del before
    return fake_quant_weights(specs, params, qparams)
