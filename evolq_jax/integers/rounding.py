"""How runtimes round: the quantizers of an integer model."""

from dataclasses import dataclass, replace

import jax.numpy as jnp

from evolq_jax.quant.observers.minmax import MINMAX
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.uniform import UNIFORM, Uniform, int_range
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.typing import Array


@dataclass(frozen=True)
class RuntimeUniform(Uniform):
    """`clip(round(x / scale) + zero_point, qmin, qmax)`: ONNX's QuantizeLinear.

    `Uniform` adds the zero point before it rounds. The codes differ where `x / scale` lies halfway between
    two integers and the zero point is odd, or where the sum loses the last bit of the quotient.
    """

    does: str = "rounds to equal steps, then adds the zero point"

    def encode(self, spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
        """Integers of the type; what lies outside its range is clipped."""
        qmin, qmax = int_range(spec.signed, site_qparams.bits)
        return jnp.clip(jnp.round(x / site_qparams.scale) + site_qparams.zero_point, qmin, qmax)


RUNTIME_UNIFORM = RuntimeUniform()


def as_runtimes_round(specs: Specs) -> Specs:
    """The specs with `RUNTIME_UNIFORM` for `UNIFORM`, weights last, and without what calibration needs."""
    plain = ((name, replace(spec, observer=MINMAX)) for name, spec in sorted(specs, key=_is_weight))
    return tuple(
        (name, replace(spec, quantizer=RUNTIME_UNIFORM) if spec.quantizer == UNIFORM else spec)
        for name, spec in plain
    )


def _is_weight(entry: tuple[str, QuantSpec]) -> bool:
    return entry[1].codes
