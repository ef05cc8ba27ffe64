"""Loads what `save` or `export` wrote: a folder, or one file."""

from collections.abc import Sequence
from pathlib import Path

from evolq_jax.integers.files import read_safetensors
from evolq_jax.integers.model import IntegerModel
from evolq_jax.network.parts import ModelParts
from evolq_jax.quant.observers.base import Observer
from evolq_jax.quant.quantizers.base import Quantizer
from evolq_jax.quantized import files
from evolq_jax.quantized.network import QuantizedNetwork


def load(
    path: str | Path, parts: ModelParts | None = None, own: Sequence[Quantizer | Observer] = ()
) -> QuantizedNetwork | IntegerModel:
    """Loads a quantized network. Either kind is a function from uint8 images to logits.

    Args:
      path: a folder that `QuantizedNetwork.save` wrote, which a search can go on from; or a
        `quantized.safetensors` of `evolq export`, which holds integers.
      parts: the functions of a network of your own. Those of the registry are found by name.
      own: quantizers and observers of your own that a folder was made with.

    Raises:
      UserError: there is nothing there, it is damaged, or it needs `parts` or `own` that are not given.
    """
    if Path(path).is_file():
        return read_safetensors(path, parts)
    return files.load(path, parts, own)
