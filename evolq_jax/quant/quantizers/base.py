"""What a quantizer is: it encodes values as integer codes, and decodes them.

To add one, subclass `Quantizer` as a frozen dataclass, write `encode` and `decode`, and put an instance into
a config or a rule in place of a name. If calibration is to find its numbers, write `num_candidates` and
`candidate` too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NoReturn

import jax
import jax.numpy as jnp

from evolq_jax.named import only_name_recorded
from evolq_jax.typing import Array

if TYPE_CHECKING:
    from evolq_jax.quant.qparams import SiteQParams
    from evolq_jax.quant.spec import QuantSpec

Use = Literal["weight", "activation", "softmax", "gelu"]  # what a site's values are
Range = tuple[Array, Array]  # low and high ends, of the scale's shape

KEPT = tuple(2.0 ** (-i / 4) for i in range(12))  # shares of the highest value that candidates keep
EPS = 1e-7


@dataclass(frozen=True)
class Quantizer(ABC):
    """How values become integer codes of a site's bits, and codes become values again.

    Its methods are pure functions. They get the site's spec, which is static, and its numbers, which are
    traced and broadcast against the values.

    Attributes:
      name: what configs call it.
      does: what it does, in one sentence without a full stop.
      integer: what integer hardware does with its codes, in one sentence without a full stop.
      uses: the values that it is for.
      has_scale: whether calibration finds its numbers, which a search may then move.
      equal_steps: whether a code stands for `(code - zero_point) * scale`. Then observers find its range, and
        links may clip, fold or round by these steps.
      signed_for: the values for which its codes are signed, whatever the config says of weights.
      takes_exponents: whether a code is the exponent of a power of two, as the integer softmax gives them.
    """

    name: str
    does: str
    integer: str
    uses: tuple[Use, ...]
    has_scale: bool = True
    equal_steps: bool = False
    signed_for: tuple[Use, ...] = ()
    takes_exponents: bool = False

    @abstractmethod
    def encode(self, spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
        """Integer codes of `x`, as float32, of its shape. They lie within `code_range`."""

    @abstractmethod
    def decode(self, spec: QuantSpec, site_qparams: SiteQParams, codes: Array) -> Array:
        """The values that codes stand for."""

    def code_range(self, spec: QuantSpec, bits: Array) -> tuple[Array, Array]:
        """The lowest and the highest code, of the shape of `bits`."""
        del spec
        return jnp.zeros_like(bits), power_of_two(bits) - 1

    def fake_quant(self, spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
        """What integer arithmetic would see of `x`: exactly `decode(encode(x))`, with `gradient`."""
        return _fake_quant(self, spec, site_qparams, x)

    def gradient(
        self, spec: QuantSpec, site_qparams: SiteQParams, x: Array, cotangent: Array
    ) -> tuple[SiteQParams, Array]:
        """The gradient of `fake_quant` to the numbers and to `x`: here straight through, to `x` alone."""
        del spec, x
        return jax.tree.map(jnp.zeros_like, site_qparams), cotangent

    def num_candidates(self, spec: QuantSpec) -> int:
        """How many sets of numbers calibration compares; 0: an observer finds them."""
        del spec
        return 0

    def candidate(self, spec: QuantSpec, bits: Array, bounds: Range, index: Array) -> SiteQParams:
        """The numbers of the candidate `index` (traced) for values that lie within `bounds`."""
        raise NotImplementedError(f"the quantizer '{self.name}' has no candidates")

    def error(self, spec: QuantSpec, difference: Array, weight: Array) -> Array:
        """What candidates are compared by: here weighed squared errors.

        Args:
          spec: the site's.
          difference: of the decoded values from the values themselves [..., K].
          weight: of each value's squared error.

        Returns:
          [1, ..., 1], or [1, ..., K] where the spec has a scale for each channel.
        """
        axes = tuple(range(difference.ndim - 1 if spec.per_channel else difference.ndim))
        return (weight * difference**2).sum(axes, keepdims=True)


@dataclass(frozen=True)
class RecordedQuantizer(Quantizer):
    """Stands in for a quantizer whose name alone is recorded. Whatever would run it is refused."""

    does: str = "is recorded by its name alone"
    integer: str = "is not known"
    uses: tuple[Use, ...] = ("weight", "activation", "softmax", "gelu")

    def encode(self, spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> NoReturn:
        """Refuses."""
        raise only_name_recorded(self.name, "quantizer")

    def decode(self, spec: QuantSpec, site_qparams: SiteQParams, codes: Array) -> NoReturn:
        """Refuses."""
        raise only_name_recorded(self.name, "quantizer")

    def num_candidates(self, spec: QuantSpec) -> NoReturn:
        """Refuses."""
        raise only_name_recorded(self.name, "quantizer")


def recorded_quantizer(name: str) -> Quantizer:
    """Stands in for a quantizer whose name alone is recorded."""
    return RecordedQuantizer(name)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _straight_through(quantizer: Quantizer, spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
    return quantizer.decode(spec, site_qparams, quantizer.encode(spec, site_qparams, x))


def _forward(
    quantizer: Quantizer, spec: QuantSpec, site_qparams: SiteQParams, x: Array
) -> tuple[Array, tuple[SiteQParams, Array]]:
    return quantizer.decode(spec, site_qparams, quantizer.encode(spec, site_qparams, x)), (site_qparams, x)


def _backward(
    quantizer: Quantizer, spec: QuantSpec, saved: tuple[SiteQParams, Array], cotangent: Array
) -> tuple[SiteQParams, Array]:
    site_qparams, x = saved
    return quantizer.gradient(spec, site_qparams, x, cotangent)


_straight_through.defvjp(_forward, _backward)
_fake_quant: Callable[[Quantizer, QuantSpec, SiteQParams, Array], Array] = _straight_through  # type: ignore[assignment]


def fake_quant(spec: QuantSpec, site_qparams: SiteQParams, x: Array) -> Array:
    """What integer arithmetic would see of `x`, by the spec's quantizer."""
    return spec.quantizer.fake_quant(spec, site_qparams, x)


def power_of_two(exponent: Array) -> Array:
    """`2 ** exponent` of integers in float32, exactly; 0 below `2 ** -126`, infinity above `2 ** 127`.

    The float's bits are written: `exp2` is a few ulp off on CPU, and `ldexp` takes long to compile.
    """
    biased = jnp.maximum(jnp.minimum(exponent.astype(jnp.int32), 128), -127) + 127
    return jax.lax.bitcast_convert_type(biased << 23, jnp.float32)


def error_of_mean(difference: Array, weight: Array) -> Array:
    """What rounding the weights [..., N] of a mean does to the mean, [1, ..., 1].

    Single errors, and those of their sum. For values v of mean m and deviation s, E |sum(error * v)|^2 =
    s^2 sum(error^2) + m^2 sum(error)^2; m and s are taken as equal. Squared errors alone would choose so fine
    a base for the outputs of softmax that most weights become zero. `weight` weighs each value's squared
    error, and its mean over a row that of the row's sum.
    """
    squares = (weight * difference**2).sum(keepdims=True)
    of_row = weight.mean(-1, keepdims=True)
    return squares + (of_row * difference.sum(-1, keepdims=True) ** 2).sum(keepdims=True)
