"""What the bits of a run depend on beside its config: what went in, and on what it ran."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import jax
import numpy as np
from jax.sharding import Mesh

from evolq_jax.data import fingerprint
from evolq_jax.devices.compile_cache import identity
from evolq_jax.devices.mesh import describe_mesh
from evolq_jax.trees import flatten
from evolq_jax.typing import Images, Params
from evolq_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "evosax", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the bits of a run depend on beside its config.

    Attributes:
      fingerprints: of weights and images, by what they are of.
      chunks: what runs at once, and how the inputs of blocks are kept.
      device: its kind.
      mesh: devices by axis.
      processes: that worked together.
      versions: of the packages that decide the numbers.
      compiled_programs: a name of those that were kept. '': none were.
    """

    fingerprints: dict[str, str]
    chunks: dict[str, int | str] = field(default_factory=dict)
    device: str
    mesh: dict[str, int]
    processes: int
    versions: dict[str, str]
    compiled_programs: str = ""


def provenance(
    mesh: Mesh | None, *, fingerprints: Mapping[str, str], chunks: Mapping[str, int | str]
) -> Provenance:
    """The provenance of what this process runs on a mesh."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return Provenance(
        fingerprints=dict(fingerprints),
        chunks=dict(chunks),
        device=jax.devices()[0].device_kind,
        mesh=describe_mesh(mesh),
        processes=jax.process_count(),
        versions={"evolq_jax": __version__, **versions},
        compiled_programs=identity(),
    )


def changes(then: Provenance, now: Provenance) -> list[str]:
    """The names of what differs, such as `weights` or `versions/jax`."""
    now = replace(now, compiled_programs=then.compiled_programs)  # see `lost_programs`
    before, after = flatten(asdict(then)), flatten(asdict(now))
    return [name.removeprefix("fingerprints/") for name, value in after.items() if before.get(name) != value]


def lost_programs(then: Provenance, now: Provenance) -> bool:
    """Whether programs may be compiled again, and differently.

    On a CPU they become the same. Elsewhere XLA may choose another kernel, by what is faster just then.
    """
    kept = then.compiled_programs and then.compiled_programs == now.compiled_programs
    return not kept and jax.default_backend() != "cpu"


def input_fingerprints(params: Params, calibration: Images, evaluation: Images) -> dict[str, str]:
    """Of what went in, so that it can be known again."""
    return {
        "weights": weights_fingerprint(params),
        "calibration images": fingerprint(calibration),
        "evaluation images": fingerprint(evaluation),
    }


def weights_fingerprint(params: Params) -> str:
    """16 hexadecimal digits of a SHA-256 over names, shapes and values of all parameters."""
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(params).items()):
        digest.update(json.dumps([name, leaf.shape]).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()[:16]
