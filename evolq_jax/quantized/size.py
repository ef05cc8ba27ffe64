"""The size of a network's numbers, as packed integers and as float32."""

from dataclasses import dataclass

import numpy as np

from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.trees import flatten

FLOAT_BITS = 32
ZERO_POINT_BITS = 8  # each is one of the codes


@dataclass(frozen=True)
class Size:
    """Bytes that a network's numbers need, without names and headers of a file.

    Attributes:
      quantized: with packed integer weights, and with scales, zero points and all other numbers as they are.
      float32: of the float network.
    """

    quantized: int
    float32: int

    @property
    def ratio(self) -> float:
        """How many times smaller the quantized network is."""
        return self.float32 / self.quantized


def size_of(quantized: QuantizedNetwork) -> Size:
    """The size of a quantized network.

    A weight counts the bits of its block. Each scale counts as float32. Each zero point of an unsigned range
    counts as a byte.
    """
    specs, bits = dict(quantized.specs), 0.0
    for name, leaf in flatten(quantized.params).items():
        # One number for each block, or one for all.
        widths = np.asarray(quantized.qparams[name].bits).ravel() if name in specs else np.array([FLOAT_BITS])
        bits += leaf.size * widths.mean()
    for name, spec in specs.items():
        if spec.has_scale:
            each = FLOAT_BITS + (0 if spec.signed else ZERO_POINT_BITS)
            bits += each * quantized.qparams[name].scale.size
    numbers = sum(leaf.size for leaf in flatten(quantized.network.params).values())
    return Size(round(bits / 8), numbers * FLOAT_BITS // 8)
