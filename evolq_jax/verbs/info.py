"""The verb `info`: what an exported file says of itself."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from evolq_jax.integers.describe import about_of
from evolq_jax.integers.exported import Format, describe_file, format_of
from evolq_jax.integers.model import About
from evolq_jax.paths import user_path


@dataclass(frozen=True, kw_only=True)
class SiteCodes:
    """How one quantized site is kept.

    Attributes:
      site: its name.
      quantizer: `weight`, or the name of an activation's quantizer.
      bits: of each block, or one number outside of blocks.
      signed: whether codes are symmetric about zero.
    """

    site: str
    quantizer: str
    bits: tuple[int, ...]
    signed: bool


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a file says of itself.

    Attributes:
      format: of the file.
      model: the network's name.
      bytes: of the file.
      float32: bytes of the float network's parameters.
      weights: weights and their parameters by bits, as `{4: (48, 5308416)}`.
      sites: every quantized site, weights last.
      float_sites: activations that stay float.
      float_parameters: numbers that stay float32, without scales.
      allowed_floats: quantized sites that the runtime computes in float.
      about: class names, scores, provenance.
    """

    format: Format
    model: str
    bytes: int
    float32: int
    weights: Mapping[int, tuple[int, int]]
    sites: tuple[SiteCodes, ...]
    float_sites: tuple[str, ...]
    float_parameters: int
    allowed_floats: tuple[str, ...]
    about: About

    @property
    def ratio(self) -> float:
        """How many times smaller than float32 the file is."""
        return self.float32 / self.bytes


def read_info(path: str | Path) -> Info:
    """What a file says of itself. Nothing is computed.

    Raises:
      UserError: there is no such file, it is none of ours, or it was truncated or edited.
    """
    path = user_path(path, "file")
    description = describe_file(path)
    weights, about = _weights(description["weights"]), about_of(description, path)
    floats = sum(prod(shape) for shape in description["float_params"].values())
    return Info(
        format=format_of(path),
        model=description["name"],
        bytes=path.stat().st_size,
        float32=4 * (floats + sum(count for _, count in weights.values())),
        weights=weights,
        sites=tuple(_sites(description["activations"] | description["weights"])),
        float_sites=tuple(description["float_sites"]),
        float_parameters=floats,
        allowed_floats=about.allowed_floats,
        about=about,
    )


def _sites(described: Mapping[str, Any]) -> Iterator[SiteCodes]:
    for name, site in described.items():
        quantizer, bits = site.get("quantizer", "weight"), tuple(site["bits"])
        yield SiteCodes(site=name, quantizer=quantizer, bits=bits, signed=site["signed"])


def _weights(described: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
    """Weights of blocks, and their parameters, by bits."""
    matrices, numbers = Counter[int](), Counter[int]()
    for weight in described.values():
        for bits in weight["bits"]:
            matrices[bits] += 1
            numbers[bits] += prod(weight["shape"]) // len(weight["bits"])
    return {bits: (matrices[bits], numbers[bits]) for bits in sorted(matrices)}
