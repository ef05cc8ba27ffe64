"""The verb `doctor`: what evolq_jax finds on this machine."""

import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass
from typing import NamedTuple

import jax

from evolq_jax.data import default_cache_dir
from evolq_jax.devices import compile_cache
from evolq_jax.devices.memory import DEVICE, limit_bytes
from evolq_jax.devices.precision import precisions
from evolq_jax.errors import UserError
from evolq_jax.version import __version__

_GIB = 2**30


class Extra(NamedTuple):
    """An optional part of the package."""

    name: str
    module: str  # that it brings
    purpose: str

    def __str__(self) -> str:
        missing = importlib.util.find_spec(self.module) is None
        remedy = f" (missing: pip install 'evolq_jax[{self.name}]')" if missing else ""
        return f"{self.name} for {self.purpose}{remedy}"


EXTRAS = (
    Extra("digits", "sklearn", "the digits"),
    Extra("hub", "huggingface_hub", "hf_hub: names"),
    Extra("onnx", "onnxruntime", "ONNX files"),
    Extra("plot", "matplotlib", "pictures"),
    Extra("stablehlo", "flatbuffers", "StableHLO files"),
)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What there is.

    Attributes:
      versions: of evolq_jax, Python and JAX.
      devices: their number and kind.
      memory: of the first device.
      processors: cores that this process may use.
      precisions: of matrix products, as `--precision` takes them.
      compiled_programs: how many are kept, and where.
      decoded_images: where they are kept.
      xla_flags: what XLA was told in the environment.
      extras: optional parts, and whether they are installed.
    """

    versions: str
    devices: str
    memory: str
    processors: int
    precisions: tuple[str, ...]
    compiled_programs: str
    decoded_images: str
    xla_flags: str
    extras: tuple[str, ...]


def diagnose() -> Diagnosis:
    """Looks around. Nothing is computed or written."""
    devices = jax.devices()
    return Diagnosis(
        versions=f"evolq_jax {__version__}, Python {platform.python_version()}, "
        f"jax {jax.__version__}, evosax {importlib.metadata.version('evosax')}",
        devices=f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})",
        memory=_memory(),
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        precisions=precisions(),
        compiled_programs=compile_cache.describe(),
        decoded_images=str(default_cache_dir() or "not kept"),
        xla_flags=os.environ.get("XLA_FLAGS") or "none",
        extras=tuple(map(str, EXTRAS)),
    )


def _memory() -> str:
    try:
        return f"{limit_bytes(DEVICE) / _GIB:.1f} GiB"
    except UserError:
        return "not known"
