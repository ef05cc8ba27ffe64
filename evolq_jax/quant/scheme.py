"""Which site of a network gets which quantizer (`QuantConfig`: schemes plus rules)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

from evolq_jax.errors import UserError
from evolq_jax.named import Thing, check_names, find
from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.observers.base import Observer
from evolq_jax.quant.observers.minmax import MINMAX
from evolq_jax.quant.observers.omse import OMSE
from evolq_jax.quant.observers.pow2 import POW2
from evolq_jax.quant.qparams import check_bits
from evolq_jax.quant.quantizers import QUANTIZERS
from evolq_jax.quant.quantizers.base import Quantizer, Use
from evolq_jax.quant.quantizers.log import LOG
from evolq_jax.quant.quantizers.shifted_log import SHIFTED_LOG
from evolq_jax.quant.quantizers.uniform import UNIFORM
from evolq_jax.quant.spec import QuantSpec, Specs, select
from evolq_jax.typing import SiteInfo

Scheme = Literal["fully_quantized", "matmul", "deploy"]
RULED: Mapping[str, Mapping[str, Any]] = {"quantizer": QUANTIZERS, "observer": OBSERVERS}  # by name in rules
DEFAULT_BITS = 8  # of a site that only a rule quantizes


@dataclass(frozen=True)
class Rule:
    """Changes the sites whose name matches `pattern` (shell style, `*` also crosses `/`); later rules win.

    `bits=0` leaves the matching sites in float; None keeps what the scheme says (8 bits and `minmax` where
    that leaves a site in float). Unless a rule says `per_channel`, an activation has factors by channel where
    its observer, a rule's or the scheme's, gives them.
    """

    pattern: str
    bits: int | None = None
    signed: bool | None = None
    per_channel: bool | None = None
    quantizer: str | Quantizer | None = None
    observer: str | Observer | None = None
    integer_op: bool | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The fields of a spec that this rule sets."""
        changes = {key: value for key, value in vars(self).items() if key != "pattern" and value is not None}
        for key in RULED.keys() & changes:
            changes[key] = _known(changes[key], RULED[key], f"the rule for '{self.pattern}'")
        return changes


@dataclass(frozen=True)
class QuantConfig:
    """Which sites are quantized, and how.

    Attributes:
      scheme: `fully_quantized` (the paper's: every site of the official code, residual stream and
        LayerNorm included), `matmul` (inputs and weights of matrix products and convolutions only,
        as RepQ-ViT, AdaLog, ERQ and, for CNNs, BRECQ count) or `deploy` (what ONNX runtimes execute with
        Q/DQ pairs: what `matmul` has, 8-bit activations with one scale for the tensor, symmetric weights;
        sums, LayerNorm, softmax and GELU in float). State it with every number: they mean very different
        things.
      weight_bits: bits of the weight matrices.
      edge_weight_bits: bits of the first and last layers' weights (patch embedding or stem, heads); None:
        `weight_bits`, as in the official code. 8 is common elsewhere, and costs little: state it.
      activation_bits: bits of every quantized activation.
      edge_activation_bits: bits of the first and last layers' inputs (image, and what heads multiply); None:
        `activation_bits`, as in the official code.
      softmax_bits: bits of the softmax output; None: as the other activations.
      weight_observer: how weight ranges are found (per output channel): `minmax`, or by squared error `omse`
        (the range shrinks) or `omse_ends` (each end does).
      activation_observer: how activation ranges are found (per tensor; as above, and `ptf` and `pow2`: with
        power-of-two factors per channel, and minmax where channels have no range of their own). None: the
        best known, `pow2`; `deploy` has no factors, and gets `omse`.
      residual_observer: the same for the residual stream in fully_quantized.
      signed_weights: symmetric `int` weights instead of affine `uint`; deploy has them in any case.
      softmax_quantizer: of softmax outputs: `uniform`; powers of 2 (`log2`), of its root (`log_sqrt2`) or of
        a base chosen by calibration (`log`); `twin`, a fine range for small weights and a coarse one. None:
        the best known, `uniform` at 8 bits and `log` below.
      gelu_quantizer: of GELU outputs: `uniform`; `twin`, a step below zero and one above; `shifted_log`,
        powers of a chosen base after lifting above zero (AdaLog), with the base 2 or its root
        `shifted_log2`, `shifted_log_sqrt2`. All but `uniform` are per tensor, whatever
        `activation_observer`. None: the best known, `uniform` at 8 bits and `shifted_log` below.
      integer_layer_norm: FQ-ViT's integer LayerNorm (fully_quantized only).
      integer_softmax: FQ-ViT's log-int-softmax (with `log2`; needs quantized attention logits).
      bias_correction: the released code's weight correction; leaves the integer grid.
      quantize_image: quantize the input image once more, which comes as 8-bit pixels (official code: DeiT and
        ViT-Tiny yes, ViT-B no).
      quantize_sums: deploy only: quantize both sides of the residual stream's additions as well. Runtimes
        need it to add integers; it costs much accuracy.
      signed_activations: symmetric `int` activations, as TensorRT wants them, instead of affine `uint`.
      rules: exceptions by site pattern, applied in order.
    """

    scheme: Scheme = "matmul"
    weight_bits: int = 4
    edge_weight_bits: int | None = 8
    activation_bits: int = 8
    edge_activation_bits: int | None = 8
    softmax_bits: int | None = None
    weight_observer: str | Observer = "omse"
    activation_observer: str | Observer | None = None
    residual_observer: str | Observer = "pow2"
    signed_weights: bool = False
    softmax_quantizer: str | Quantizer | None = None
    gelu_quantizer: str | Quantizer | None = None
    integer_layer_norm: bool = False
    integer_softmax: bool = False
    bias_correction: bool = False
    quantize_image: bool = False
    quantize_sums: bool = False
    signed_activations: bool = False
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        """Rejects unknown names, integer operations that would not run, and what `deploy` cannot do."""
        for use in ("softmax", "gelu"):
            self._quantizer(use)
        for of in ("weight", "activation", "residual"):
            self._observer(of)
        for number, rule in enumerate(self.rules):
            for key, things in RULED.items():
                if (given := getattr(rule, key)) is not None:
                    _known(given, things, f"quant.rules[{number}].{key}")
        if self.integer_layer_norm and self.scheme != "fully_quantized":
            raise UserError(
                f"quant.integer_layer_norm needs quant.scheme fully_quantized: under {self.scheme} the "
                "input of LayerNorm is not quantized"
            )
        takes_exponents = self._quantizer("softmax").takes_exponents
        if self.integer_softmax and not (self.scheme == "fully_quantized" and takes_exponents):
            raise UserError(
                "quant.integer_softmax needs quant.scheme fully_quantized and quant.softmax_quantizer log2"
            )

        if self.scheme == "deploy":
            self._check_deploy()
        elif self.quantize_sums:
            raise UserError(f"quant.quantize_sums is for quant.scheme deploy, not for {self.scheme}")

    def _check_deploy(self) -> None:
        bits = {self.activation_bits, self.edge_activation_bits or 8, self.softmax_bits or 8}
        for wrong, key, remedy in (
            (bits != {8}, "activation_bits, edge_activation_bits and softmax_bits", "8"),
            (self._observer("activation").by_channel, "activation_observer", "for example omse"),
            (self._quantizer("softmax") != UNIFORM, "softmax_quantizer", "uniform"),
            (self._quantizer("gelu") != UNIFORM, "gelu_quantizer", "uniform"),
            (self.bias_correction, "bias_correction", "off"),
        ):
            if wrong:
                raise UserError(
                    f"quant.scheme deploy is what ONNX runtimes execute with Q/DQ pairs: quant.{key} must be "
                    f"{remedy}"
                )

    def fields(self, site: str, info: SiteInfo) -> dict[str, Any] | None:
        """What the scheme says of one site (rules not applied); None: the site stays in float."""
        if info.is_weight:
            edge_bits = self.edge_weight_bits if "edge_weights" in info.roles else None
            return {
                "bits": edge_bits or self.weight_bits,
                "signed": self.signed_weights or self.scheme == "deploy",
                "per_channel": True,
                "observer": self._observer("weight"),
                "bias_correction": self.bias_correction,
            }
        if not self._quantizes(site, info):
            return None
        residual = "residual" in info.roles and self.scheme == "fully_quantized"
        softmax = "softmax" in info.roles
        edge_bits = self.edge_activation_bits if "edge_inputs" in info.roles else None
        quantizer = self._quantizer(use_of(info))
        return {
            **({"signed": True} if self.signed_activations and quantizer == UNIFORM else {}),
            "bits": (self.softmax_bits if softmax else edge_bits) or self.activation_bits,
            "quantizer": quantizer,
            "observer": self._observer("residual" if residual else "activation"),
            "integer_op": (softmax and self.integer_softmax)
            or (self.integer_layer_norm and "layer_norm" in info.roles),
        }

    def _quantizer(self, use: Use) -> Quantizer:
        """That of softmax or GELU outputs, by its name, as it was given, or the best known; else uniform."""
        if use not in ("softmax", "gelu"):
            return UNIFORM
        given = self.softmax_quantizer if use == "softmax" else self.gelu_quantizer
        if given is None:
            bits = (self.softmax_bits or self.activation_bits) if use == "softmax" else self.activation_bits
            return UNIFORM if bits == 8 else LOG if use == "softmax" else SHIFTED_LOG
        known = {name: quantizer for name, quantizer in QUANTIZERS.items() if use in quantizer.uses}
        check_names([given], QUANTIZERS, f"quant.{use}_quantizer")
        quantizer = find(given, known, f"quant.{use}_quantizer has the unknown value")
        if use not in quantizer.uses:
            raise UserError(f"quant.{use}_quantizer '{quantizer.name}' is for {_listed(quantizer)}")
        return quantizer

    def _observer(self, of: Literal["weight", "activation", "residual"]) -> Observer:
        """That of weights, activations or the residual stream, by its name, as given, or the best known."""
        given = getattr(self, f"{of}_observer")
        if given is None:
            return OMSE if self.scheme == "deploy" else POW2
        return _known(given, OBSERVERS, f"quant.{of}_observer")

    def _quantizes(self, site: str, info: SiteInfo) -> bool:
        if site == "image":
            return self.quantize_image
        if self.scheme == "fully_quantized":
            return "beyond_paper" not in info.roles
        return "operands" in info.roles or (self.quantize_sums and "addends" in info.roles)


class Resolved(NamedTuple):
    """What a config makes of one network: the quantized sites, and how many bits each has."""

    specs: Specs
    bits: dict[str, int]


def use_of(info: SiteInfo) -> Use:
    """What a site's values are, for which a quantizer has to be made."""
    if info.is_weight:
        return "weight"
    return "softmax" if "softmax" in info.roles else "gelu" if "gelu" in info.roles else "activation"


def _known(given: str | Thing, things: Mapping[str, Thing], where: str) -> Thing:
    """The thing of that name, or the thing itself."""
    check_names([given], things, where)
    return find(given, things, f"{where} has the unknown value")


def _listed(quantizer: Quantizer) -> str:
    """What a quantizer is for, in words."""
    return " and ".join(f"outputs of {u}" if u in ("softmax", "gelu") else f"{u}s" for u in quantizer.uses)


def _spec(site: str, info: SiteInfo, fields: Mapping[str, Any]) -> QuantSpec:
    """The spec of these fields, and what follows from them for an activation where they do not say it.

    Observers by channel give factors by channel; where there can be none, `minmax` takes their place.
    """
    spec, use = QuantSpec(**fields), use_of(info)
    if use not in spec.quantizer.uses:
        raise UserError(
            f"quant.rules give '{site}' the quantizer '{spec.quantizer.name}', which is for "
            f"{_listed(spec.quantizer)}: take another, or another pattern"
        )
    if use == "softmax" and spec.integer_op and not spec.quantizer.takes_exponents:
        raise UserError(
            f"quant.rules give '{site}' an integer softmax, which makes powers of two: set its quantizer to "
            "log2"
        )
    if info.is_weight:
        return spec
    by_channel, observer = spec.observer.by_channel, spec.observer
    if by_channel and ("per_tensor" in info.roles or not spec.quantizer.equal_steps):
        by_channel, observer = False, MINMAX
    implied = {"signed": use in spec.quantizer.signed_for, "per_channel": by_channel, "observer": observer}
    return replace(spec, **{key: implied[key] for key in implied if key == "observer" or key not in fields})


def resolve(config: QuantConfig, sites: Mapping[str, SiteInfo]) -> Resolved:
    """Scheme and rules for the sites of one network (see `evolq_jax.network.sites.list_sites`).

    Raises:
      UserError: a rule's pattern matches no site, or it gives one a quantizer that is not for it, or asks of
        `deploy` what that cannot execute; or bits are not from 2 to 8.
    """
    for rule in config.rules:
        select([rule.pattern], sites)
    resolved, bits = [], {}
    for site, info in sites.items():
        fields = config.fields(site, info)
        for rule in config.rules:
            if fnmatchcase(site, rule.pattern):
                fields = None if rule.bits == 0 else (fields or {}) | rule.changes
        if fields is not None:
            bits[site] = fields.pop("bits", DEFAULT_BITS)
            check_bits(f"the bits of '{site}'", bits[site])
            spec = _spec(site, info, fields)
            if config.scheme == "deploy":
                _check_deployed(site, spec, bits[site], info)
            resolved.append((site, spec))
    return Resolved(tuple(resolved), bits)


def _check_deployed(site: str, spec: QuantSpec, bits: int, info: SiteInfo) -> None:
    plain = spec.quantizer == UNIFORM and not spec.integer_op
    activation = bits == 8 and not spec.per_channel
    if not plain or not (spec.signed if info.is_weight else activation):
        wanted = "symmetric" if info.is_weight else "8 bits, with one scale and zero point"
        raise UserError(
            f"quant.scheme deploy is what ONNX runtimes execute with Q/DQ pairs: a rule makes '{site}' "
            f"something other than uniform, {wanted}; change quant.rules"
        )
