"""Named parts of a traced forward pass, by which the products of integers and the ONNX writer know them.

A mark is a jitted function, so in a jaxpr it is one equation whose `name` is `KIND:site`. What it computes is
not changed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from evolq_jax.network.parts import ModelParts, Segment
from evolq_jax.network.reading import Reading
from evolq_jax.network.sites import is_stacked
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.sites import QuantSite, layer_norm
from evolq_jax.quant.spec import QuantSpec, Specs, scope
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params, PyTree, Site

# What goes into each, in the order of the equation's inputs:
ENCODE = "evolq_encode"  # scale, zero point, bits, x -> codes
DECODE = "evolq_decode"  # scale, zero point, bits, codes -> x
LAYER_NORM = "evolq_layer_norm"  # weight, bias, x, eps -> normalised over the last axis
SOFTMAX = "evolq_softmax"  # logits -> probabilities, over the last axis


def mark(kind: str, site: str, run: Callable[[Any], Array], given: PyTree) -> Array:
    """The result of `run(given)`, as one equation of a jaxpr."""

    def marked(given: PyTree) -> Array:
        return run(given)

    marked.__name__ = f"{kind}:{site}"
    return jax.jit(marked)(given)


def read_mark(name: str) -> tuple[str, str] | None:
    """`(kind, site)` of the name of an equation. None: it is no mark."""
    kind, _, site = name.partition(":")
    return (kind, site) if kind in (ENCODE, DECODE, LAYER_NORM, SOFTMAX) else None


@dataclass(frozen=True)
class MarkedSite(QuantSite):
    """A quantized reading with marks. `prefix` comes before the names of its sites."""

    prefix: str = ""

    def __call__(self, name: str, x: Array) -> Array:
        """Encodes and decodes `x`."""
        spec = self.specs.get(name)
        if spec is None:
            return x
        numbers, site = self.qparams[name], self.prefix + name

        def encode(given: tuple[SiteQParams, Array]) -> Array:
            return spec.quantizer.encode(spec, given[0], given[1])

        return decode(site, spec, numbers, mark(ENCODE, site, encode, (numbers, x)))

    def layer_norm(self, name: str, source: str, x: Array, norm: Params, *, eps: float) -> Array:
        """LayerNorm, marked where it runs in float."""
        if self.in_integers(name, source):
            return super().layer_norm(name, source, x, norm, eps=eps)

        def run(given: tuple[Array, Array, Array, float]) -> Array:
            weight, bias, x, eps = given
            return layer_norm({"weight": weight, "bias": bias}, x, eps)

        given = (norm["weight"], norm["bias"], x, eps)
        return self(name, mark(LAYER_NORM, self.prefix + name, run, given))

    def softmax(self, name: str, source: str, logits: Array) -> Array:
        """Softmax, marked where it runs in float."""
        if self.in_integers(name, source):
            return super().softmax(name, source, logits)
        return self(name, mark(SOFTMAX, self.prefix + name, partial(jax.nn.softmax, axis=-1), logits))


def decode(site: str, spec: QuantSpec, numbers: SiteQParams, codes: Array) -> Array:
    """The values of codes, marked."""

    def run(given: tuple[SiteQParams, Array]) -> Array:
        return spec.quantizer.decode(spec, given[0], given[1])

    return mark(DECODE, site, run, (numbers, codes))


def decode_weights(
    specs: Mapping[str, QuantSpec], params: Params, qparams: QParams, prefix: str = ""
) -> Params:
    """The parameters, with coded weights decoded and marked."""
    leaves = flatten(params)
    for name, spec in specs.items():
        if spec.codes and name in leaves:
            leaves[name] = decode(prefix + name, spec, qparams[name], leaves[name])
    return unflatten(leaves)


def marked_reading(parts: ModelParts, specs: Specs, params: Params, qparams: QParams) -> Reading:
    """A reading for `marked_parts`: weights outside the segments are decoded, those of blocks are codes."""
    outside = {name: spec for name, spec in specs if not is_stacked(parts, name)}
    return Reading(
        lambda segment, entries: MarkedSite(scope(specs, segment), entries, f"{segment}/" if segment else ""),
        decode_weights(outside, params, qparams),
        qparams,
    )


def marked_parts(parts: ModelParts, specs: Specs) -> ModelParts:
    """The network's functions, with blocks that take codes in place of weights."""
    return replace(parts, segments=tuple(_marked_segment(segment, specs) for segment in parts.segments))


def _marked_segment(segment: Segment, specs: Specs) -> Segment:
    own = scope(specs, segment.name)

    def on_codes(run: Callable[[Params, Site, Array], Array], params: Params, site: Site, x: Array) -> Array:
        assert isinstance(site, MarkedSite)
        return run(decode_weights(own, params, dict(site.qparams), site.prefix), site, x)

    last = None if segment.last is None else partial(on_codes, segment.last)
    return replace(segment, block=partial(on_codes, segment.block), last=last)
