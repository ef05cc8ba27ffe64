"""The whole network as one jaxpr: every block by itself, every array a named input, the batch a symbol."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from evolq_jax.devices.precision import matmul_precision
from evolq_jax.integers.marks import MarkedSite, marked_parts, marked_reading
from evolq_jax.integers.model import IntegerModel
from evolq_jax.network.parts import Segment
from evolq_jax.network.run import run_block
from evolq_jax.network.sites import is_stacked
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.spec import QuantSpec, scope
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params


@dataclass(frozen=True)
class Traced:
    """A network as equations.

    Attributes:
      jaxpr: closed. Its inputs are `arrays` in their order, then the normalised images [b, height, width,
        channels]; its output are logits [b, C].
      arrays: by name. A quantized weight has `NAME.codes`, a quantizer `NAME.scale`, `NAME.zero_point` and
        `NAME.bits`.
      specs: how each marked site is quantized. Those of blocks have the block's number: `blocks.3/norm1`.
      batch: the symbol of the number of images.
    """

    jaxpr: Any
    arrays: dict[str, np.ndarray]
    specs: dict[str, QuantSpec]
    batch: Any


def in_block(segment: str, block: int, name: str = "") -> str:
    """The name of a site or parameter of one block: `blocks.3/norm1`."""
    return f"{segment}.{block}/{name}"


def tensor_name(site: str) -> str:
    """The name of a site or parameter in a graph: `blocks.3.norm1`."""
    return site.replace("/", ".")


def by_block(model: IntegerModel, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """An array by the names of its blocks; alone where it belongs to none."""
    if not is_stacked(model.parts, name):
        return {tensor_name(name): array}
    segment, inside = name.split("/", 1)
    return {tensor_name(in_block(segment, i, inside)): block for i, block in enumerate(array)}


def trace(model: IntegerModel) -> Traced:
    """Traces the network. Nothing is computed."""
    coded = {name for name, spec in model.specs if spec.codes}
    arrays: dict[str, np.ndarray] = {}
    for name, leaf in flatten(model.params).items():
        arrays |= by_block(model, f"{name}.codes" if name in coded else name, np.asarray(leaf))
    for site, numbers in model.qparams.items():
        for part, array in numbers._asdict().items():
            arrays |= by_block(model, f"{site}.{part}", np.asarray(array))
    arrays = dict(sorted(arrays.items()))
    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *model.image_shape), jnp.float32)
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in arrays.items()}

    def run(arrays: Mapping[str, Array], images: Array) -> Array:
        with matmul_precision(model.precision):
            return _forward(model, arrays, images)

    return Traced(jax.make_jaxpr(run)(shapes, images), arrays, _marked_specs(model), batch)


def _forward(model: IntegerModel, arrays: Mapping[str, Array], images: Array) -> Array:
    """The network, block by block. The last block runs for those tokens alone that the head reads."""
    parts, x = marked_parts(model.parts, model.specs), images
    outside = [name for name in flatten(model.params) if not is_stacked(parts, name)]
    numbers = _qparams([site for site in model.qparams if not is_stacked(parts, site)], arrays)
    params = _params(dict(model.specs), outside, arrays)
    reading = marked_reading(parts, model.specs, params, numbers)
    for segment in parts.segments:
        x = segment.enter(reading.params, reading.outside, x)
        for block in range(segment.length):
            last = segment is parts.segments[-1] and block == segment.length - 1
            params, site = _block(model, segment, block, arrays)
            x = run_block(segment, params, site, x, last=last)
    return parts.head(reading.params, reading.outside, x)


def _block(
    model: IntegerModel, segment: Segment, block: int, arrays: Mapping[str, Array]
) -> tuple[Params, MarkedSite]:
    """The parameters of one block, and what it calls at its sites."""
    prefix, specs = in_block(segment.name, block), scope(model.specs, segment.name)
    params = _params(specs, list(flatten(model.params[segment.name])), arrays, prefix)
    numbers = _qparams(list(scope(model.qparams, segment.name)), arrays, prefix)
    return params, MarkedSite(specs, numbers, prefix)


def _params(
    specs: Mapping[str, QuantSpec], names: list[str], arrays: Mapping[str, Array], prefix: str = ""
) -> Params:
    def key(name: str) -> str:
        coded = name in specs and specs[name].codes
        return tensor_name(f"{prefix}{name}.codes" if coded else prefix + name)

    return unflatten({name: arrays[key(name)] for name in names})


def _qparams(sites: list[str], arrays: Mapping[str, Array], prefix: str = "") -> QParams:
    def numbers(site: str) -> SiteQParams:
        name = tensor_name(prefix + site)
        return SiteQParams(arrays[f"{name}.scale"], arrays[f"{name}.zero_point"], arrays[f"{name}.bits"])

    return {site: numbers(site) for site in sites}


def _marked_specs(model: IntegerModel) -> dict[str, QuantSpec]:
    found: dict[str, QuantSpec] = {}
    for site, spec in model.specs:
        if not is_stacked(model.parts, site):
            found[site] = spec
            continue
        name, inside = site.split("/", 1)
        (segment,) = (s for s in model.parts.segments if s.name == name)
        found |= {in_block(name, block, inside): spec for block in range(segment.length)}
    return found
