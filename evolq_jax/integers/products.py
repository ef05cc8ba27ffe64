"""An integer model that multiplies integers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from evolq_jax.errors import UserError
from evolq_jax.integers.carriers import LIMITS, Carrier
from evolq_jax.integers.evaluation import Evaluation, Product
from evolq_jax.integers.model import IntegerModel
from evolq_jax.network.chunks import in_padded_chunks
from evolq_jax.network.network import CHUNK
from evolq_jax.quant.qparams import QParams
from evolq_jax.typing import Array, Params


@struct.dataclass
class IntegerProducts:
    """An integer model that multiplies integers. It is a pytree, and a function from images to logits.

    Its logits differ from the model's by the rounding of products, and by the codes that this moves. Those of
    all carriers are equal bit for bit.

    Attributes:
      model: what it computes, and its numbers.
      carrier: the type of the integers.
      wide: the sites whose codes less their zero points lie outside of int8.
    """

    model: IntegerModel
    carrier: Carrier = struct.field(pytree_node=False)
    wide: frozenset[str] = struct.field(pytree_node=False)

    def apply(self, params: Params, qparams: QParams, images: Array) -> Array:
        """Logits [B, C], as a pure function.

        Args:
          params: as `self.model.params`.
          qparams: as `self.model.qparams`. Other bits and zero points than those need a model of their own.
          images: uint8 pixels [B, height, width, channels], or floats that are normalised already.
        """
        evaluation = Evaluation(dict(self.model.specs), self.carrier, self.wide)
        return evaluation(self.model.apply, params, qparams, images)

    def __call__(self, images: Array | np.ndarray) -> Array:
        """Logits [B, C] of images, which are as in `apply`. `network.CHUNK` images run at once."""
        return _logits(self, jnp.asarray(images))


@jax.jit
def _logits(products: IntegerProducts, images: Array) -> Array:
    run = partial(products.apply, products.model.params, products.model.qparams)
    return in_padded_chunks(run, images, CHUNK)


def integer_products(model: IntegerModel, carrier: Carrier = "int8") -> IntegerProducts:
    """The model with products of integers.

    Args:
      model: what is computed. Its numbers must be known: it is no argument of a compiled program.
      carrier: `int8`, with sums in int32; or `float32` or `bfloat16`, with sums in float32. Those are exact
        as long as they are below 2**24, which is checked of every product.

    Raises:
      UserError: there is no such carrier, or it does not hold the largest sum that a product can have.
    """
    if carrier not in LIMITS:
        raise UserError(f"no carrier '{carrier}': take {', '.join(LIMITS)}")
    for product in list_products(model):
        if not product.why_float and (largest := largest_sum(model, product)) >= LIMITS[carrier]:
            advice = "take the carrier int8" if largest < LIMITS["int8"] else "call the model itself"
            raise UserError(
                f"sums of {' or '.join(product.left)} times {' or '.join(product.right)} can reach "
                f"{largest:,}, and the carrier {carrier} is exact below {LIMITS[carrier]:,}: {advice}"
            )
    ends = {name: _ends(model, name) for name, spec in model.specs if spec.quantizer.equal_steps}
    wide = frozenset(name for name, (low, high) in ends.items() if low < -128 or high > 127)
    return IntegerProducts(model, carrier, wide)


def list_products(model: IntegerModel) -> list[Product]:
    """The matrix products and convolutions of a forward pass, in their order. Nothing is computed.

    What happens in every block of a segment is listed once, and so are products of which all is alike.
    """
    evaluation = Evaluation(dict(model.specs), "int8", frozenset())
    images = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.uint8)
    jax.eval_shape(partial(evaluation, model.apply), model.params, model.qparams, images)
    return [*evaluation.found]


def largest_sum(model: IntegerModel, product: Product) -> int:
    """What the size of no sum exceeds, in an integer product, whatever the images.

    Of a weight the codes are known. Of activations it is known between which ends they lie.
    """
    weights = model.weights
    if product.right[0] not in weights:
        return product.terms * _size(model, product.left) * _size(model, product.right)
    weight = weights[product.right[0]]
    centred = np.abs(weight.codes.astype(int) - weight.zero_point.astype(int))
    summed = tuple(axis for axis, size in enumerate(weight.scale.shape) if size == 1)
    return int(centred.sum(summed).max()) * _size(model, product.left)


def _size(model: IntegerModel, sites: tuple[str, ...]) -> int:
    """The largest size that centred codes of these sites can have."""
    return max(max(-low, high) for low, high in (_ends(model, site) for site in sites))


def _ends(model: IntegerModel, site: str) -> tuple[int, int]:
    """The lowest and the highest code less its zero point that a site can have, in any block."""
    signed = dict(model.specs)[site].signed
    _, zero_point, bits = (np.asarray(numbers).astype(int) for numbers in model.qparams[site])
    lowest = -(2 ** (bits - 1)) if signed else 0 * bits
    low, high = lowest - zero_point, lowest + 2**bits - 1 - zero_point
    return int(low.min()), int(high.max())
