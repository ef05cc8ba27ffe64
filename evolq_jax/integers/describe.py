"""What an exported file says of itself, whatever its format: one JSON object with a checksum."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.integers.model import About, IntegerModel
from evolq_jax.integers.rounding import as_runtimes_round
from evolq_jax.json_text import parse_object
from evolq_jax.named import find
from evolq_jax.quant.quantizers import QUANTIZERS
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.quantized.description import FIELDS, describe_network, structured
from evolq_jax.version import __version__

FORMAT = 1
KEY = "evolq"  # of the metadata of a file
CHECKSUM = "checksum"
PARTS = (
    "format",
    "evolq_jax",
    *FIELDS,
    "weights",
    "activations",
    "float_params",
    "float_sites",
    "fingerprint",
    "about",
)


def describe(model: IntegerModel) -> dict[str, Any]:
    """All of a model but its arrays, as plain values."""
    weights, specs = model.weights, dict(model.specs)
    return {
        "format": FORMAT,
        "evolq_jax": __version__,
        **describe_network(model),
        "weights": {
            name: {"shape": [*weight.codes.shape], "bits": weight.bits.tolist(), "signed": weight.signed}
            for name, weight in weights.items()
        },
        "activations": {
            name: {
                "quantizer": site.kind,
                "bits": site.bits.tolist(),
                "signed": site.signed,
                "per_channel": specs[name].per_channel,
                "integer_op": site.integer_op,
            }
            for name, site in model.activations.items()
        },
        "float_params": {name: [*array.shape] for name, array in model.float_params.items()},
        "float_sites": model.float_sites,
        "fingerprint": fingerprint(model),
        "about": dataclasses.asdict(model.about),
    }


def fingerprint(model: IntegerModel) -> str:
    """16 hexadecimal digits of a SHA-256 over all numbers: the same integers, whatever file they lie in."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays_of(model).items()):
        digest.update(checksum(name, array).encode())
    return digest.hexdigest()[:16]


def arrays_of(model: IntegerModel) -> dict[str, np.ndarray]:
    """Every array of a model by name: codes as whole bytes, scales, zero points, and what stays float."""
    found = dict(model.float_params)
    for name, weight in model.weights.items():
        found[f"{name}.codes"] = weight.codes
        found[f"{name}.scale"] = weight.scale
        if not weight.signed:
            found[f"{name}.zero_point"] = weight.zero_point
    for name, site in model.activations.items():
        found[f"{name}.scale"] = site.scale
        found[f"{name}.zero_point"] = site.zero_point
    return found


def checksum(name: str, array: np.ndarray) -> str:
    """32 hexadecimal digits of a SHA-256 over the name, type, shape and bytes of an array."""
    digest = hashlib.sha256(json.dumps([name, array.dtype.name, [*array.shape]]).encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def sealed(description: Mapping[str, Any]) -> str:
    """The description as JSON, with a checksum of itself."""
    return json.dumps({**description, CHECKSUM: _checksum_of(description)})


def unsealed(text: str, where: Path) -> dict[str, Any]:
    """The description that `sealed` wrote.

    Raises:
      UserError: it is no JSON, was edited, lacks a field, or is of another version.
    """
    try:
        found = parse_object(text, f"'{where}'")
    except UserError as error:
        raise UserError(f"{error}: export the network again") from error
    said = found.pop(CHECKSUM, None)
    if said != _checksum_of(found):
        raise UserError(f"'{where}': its description was edited or damaged: export the network again")
    if missing := set(PARTS) - set(found):
        raise UserError(f"'{where}': its description lacks {', '.join(sorted(missing))}: export it again")
    if found["format"] != FORMAT:
        raise UserError(
            f"'{where}' has format {found['format']}, and this version of evolq_jax reads {FORMAT}: "
            f"read it with evolq_jax {found['evolq_jax']}, or export the network again"
        )
    return found


def specs_of(description: Mapping[str, Any], where: Path) -> Specs:
    """How each site is quantized, weights last."""
    specs: list[tuple[str, QuantSpec]] = []
    for name, site in description["activations"].items():
        quantizer = find(site["quantizer"], QUANTIZERS, f"'{where}': {name} has the unknown quantizer")
        spec = QuantSpec(site["signed"], site["per_channel"], quantizer, integer_op=site["integer_op"])
        specs.append((name, spec))
    for name, weight in description["weights"].items():
        specs.append((name, QuantSpec(weight["signed"], per_channel=True, codes=True)))
    return as_runtimes_round(tuple(specs))


def about_of(description: Mapping[str, Any], where: Path) -> About:
    """What is known of the model."""
    return structured(description["about"], About, where)


def _checksum_of(description: Mapping[str, Any]) -> str:
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
