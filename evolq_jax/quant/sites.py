"""The readings of a network's quantization points: float, observed, fake-quantized."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax

from evolq_jax.quant.channel_statistics import match_channel_statistics
from evolq_jax.quant.gradients import with_gradient_of
from evolq_jax.quant.integer_ops import integer_layer_norm, integer_softmax
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers.base import fake_quant
from evolq_jax.quant.spec import QuantSpec, Specs, scope
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params, Site

# (scope, entries of that scope) -> Site. The scope is a segment's name, or "" outside the blocks; the
# entries are scales or statistics by local site name, of one block where the scope is a segment.
SiteFactory = Callable[[str, Mapping[str, Any]], Site]


def layer_norm(norm: Params, x: Array, eps: float) -> Array:
    """LayerNorm over the last axis, in floating point. `norm` holds a `weight` and a `bias` [D]."""
    centred = x - x.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + eps)
    return centred * inverse * norm["weight"] + norm["bias"]


class FloatSite:
    """Leaves every tensor as it is: the float network."""

    def __call__(self, name: str, x: Array) -> Array:
        """Returns `x`."""
        del name
        return x

    def layer_norm(self, name: str, source: str, x: Array, norm: Params, *, eps: float) -> Array:
        """LayerNorm in floating point, then the site."""
        del source
        return self(name, layer_norm(norm, x, eps))

    def softmax(self, name: str, source: str, logits: Array) -> Array:
        """Softmax in floating point, then the site."""
        del source
        return self(name, jax.nn.softmax(logits, axis=-1))


@dataclass(frozen=True)
class QuantSite(FloatSite):
    """Fake-quantizes the sites that have a spec; the others stay in float.

    Gradients pass: through rounding as the quantizers say, and through integer operations as through those in
    float, whose results they approximate.
    """

    specs: Mapping[str, QuantSpec]
    qparams: Mapping[str, SiteQParams]

    def __call__(self, name: str, x: Array) -> Array:
        """Returns `x` as integer arithmetic would see it."""
        spec = self.specs.get(name)
        return x if spec is None else fake_quant(spec, self.qparams[name], x)

    def in_integers(self, name: str, source: str) -> bool:
        """Whether the LayerNorm or softmax of a site runs in integers, which needs a quantized input."""
        return name in self.specs and self.specs[name].integer_op and source in self.specs

    def layer_norm(self, name: str, source: str, x: Array, norm: Params, *, eps: float) -> Array:
        """Integer LayerNorm where the spec asks for it and the input is quantized."""
        if not self.in_integers(name, source):
            return super().layer_norm(name, source, x, norm, eps=eps)
        scale_in, scale_out = self.qparams[source].scale, self.qparams[name].scale
        exact = integer_layer_norm(norm, x, scale_in, scale_out)
        return self(name, with_gradient_of(layer_norm(norm, x, eps), exact))

    def softmax(self, name: str, source: str, logits: Array) -> Array:
        """Log-int-softmax where the spec asks for it and the logits are quantized."""
        if not self.in_integers(name, source):
            return super().softmax(name, source, logits)
        spec = self.specs[name]
        exponents = integer_softmax(logits, self.qparams[source].scale)
        exact = spec.quantizer.decode(spec, self.qparams[name], exponents)
        return with_gradient_of(jax.nn.softmax(logits, axis=-1), exact)


class IntegerNormSite(QuantSite):
    """Float but for integer LayerNorms: what the released code uses as its teacher."""

    def __call__(self, name: str, x: Array) -> Array:
        """Returns `x`."""
        return x


@dataclass(frozen=True)
class ObserveSite(FloatSite):
    """The float network, with `observe(name, x)` collected at every site it has an entry for."""

    observe: Callable[[str, Array], Any]
    names: frozenset[str]
    records: dict[str, Any] = field(default_factory=dict)

    def __call__(self, name: str, x: Array) -> Array:
        """Returns `x`, observed."""
        if name in self.names:
            self.records[name] = self.observe(name, x)
        return x


@dataclass(frozen=True)
class RecordSite:
    """Another reading, with what leaves the named sites kept.

    Sites with a `known` value give it in place of their own. XLA then drops whatever only led there.
    """

    site: Site
    names: frozenset[str]
    kept: dict[str, Array] = field(default_factory=dict)  # in the order in which the sites are called
    known: Mapping[str, Array] = field(default_factory=dict)

    def __call__(self, name: str, x: Array) -> Array:
        """The other reading's."""
        return self._keep(name, self.site(name, x))

    def layer_norm(self, name: str, source: str, x: Array, norm: Params, *, eps: float) -> Array:
        """The other reading's."""
        return self._keep(name, self.site.layer_norm(name, source, x, norm, eps=eps))

    def softmax(self, name: str, source: str, logits: Array) -> Array:
        """The other reading's."""
        return self._keep(name, self.site.softmax(name, source, logits))

    def _keep(self, name: str, x: Array) -> Array:
        x = self.known.get(name, x)
        if name in self.names:
            self.kept[name] = x
        return x


def float_sites(segment: str, qparams: Mapping[str, Any]) -> Site:
    """The site factory of the float network."""
    del segment, qparams
    return FloatSite()


def quant_sites(specs: Specs) -> SiteFactory:
    """The site factory of the quantized network."""
    return lambda segment, qparams: QuantSite(scope(specs, segment), qparams)


def integer_norm_sites(specs: Specs) -> SiteFactory:
    """The site factory of the released code's teacher (see `IntegerNormSite`)."""
    return lambda segment, qparams: IntegerNormSite(scope(specs, segment), qparams)


def fake_quant_weights(specs: Specs, params: Params, qparams: Mapping[str, SiteQParams]) -> Params:
    """The parameter tree with every weight that has a spec fake-quantized.

    A weight's site is its path, `.../weight`. Works on a whole tree (stacked blocks under their
    segment's name) and, with the specs and scales of one scope, on one block.
    """
    leaves = flatten(params)
    for name, spec in specs:
        if name in leaves:
            leaves[name] = fake_quant_weight(spec, qparams[name], leaves[name])
    return unflatten(leaves)


def encode_weights(specs: Specs, params: Params, qparams: Mapping[str, SiteQParams]) -> Params:
    """The parameter tree with the integers, as float32, of every weight whose spec says `codes`."""
    decided = tuple((name, spec) for name, spec in specs if spec.codes)
    if not decided:
        return params
    leaves = flatten(params)
    weights = {name: leaves[name] for name, _ in decided}
    return unflatten(leaves | _codes(decided, weights, {name: qparams[name] for name, _ in decided}))


@partial(jax.jit, static_argnames=("specs",))
def _codes(specs: Specs, weights: dict[str, Array], qparams: Mapping[str, SiteQParams]) -> dict[str, Array]:
    return {name: spec.quantizer.encode(spec, qparams[name], weights[name]) for name, spec in specs}


def fake_quant_weight(spec: QuantSpec, site_qparams: SiteQParams, weight: Array) -> Array:
    """One weight [..., in, K], stacked or not (or its integers), as integer arithmetic would see it."""
    if spec.codes:
        return spec.quantizer.decode(spec, site_qparams, weight)
    quantized = fake_quant(spec, site_qparams, weight)
    if not spec.bias_correction:
        return quantized
    # All but the channels, also where one scale serves them all, and but L where the weight is stacked.
    axes = tuple(axis for axis, size in enumerate(site_qparams.scale.shape[:-1]) if size == 1)
    return match_channel_statistics(weight, quantized, axes)
