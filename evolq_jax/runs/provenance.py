"""A record of what went into a run, and of the devices and versions that ran it."""

import hashlib
import importlib.metadata
import json
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from evolq_jax.data import fingerprint
from evolq_jax.devices.mesh import describe_mesh
from evolq_jax.pipeline.load import Setup
from evolq_jax.trees import flatten
from evolq_jax.typing import Images, Params
from evolq_jax.version import __version__


def describe(setup: Setup, num_evaluation_images: int) -> dict[str, Any]:
    """The caption of a table of scores: the setting, the seed, the images."""
    config = setup.config
    corrections = {"added_parameters": setup.added_parameters} if setup.added_parameters else {}
    return corrections | {
        "seed": config.seed,
        "num_evaluation_images": num_evaluation_images,
        "name": config.name,
        "model": setup.model.name,
        "scheme": config.quant.scheme,
        "weight_bits": config.quant.weight_bits,
        "edge_weight_bits": config.quant.edge_weight_bits,
        "activation_bits": config.quant.activation_bits,
    }


def inputs(setup: Setup, calibration: Images, evaluation: Images) -> dict[str, Any]:
    """The inputs of a run, so that they can be recognised: numbers and fingerprints of images and weights."""
    return {
        "num_calibration_images": len(calibration.pixels),
        "skipped_images": {"calibration": len(calibration.skipped), "evaluation": len(evaluation.skipped)},
        "fingerprints": {
            "weights": weights_fingerprint(setup.model.params),
            "calibration images": fingerprint(calibration),
            "evaluation images": fingerprint(evaluation),
        },
    }


def environment(mesh: Mesh | None = None) -> dict[str, Any]:
    """The devices, and the versions of the packages that decide the numbers."""
    packages = ("jax", "jaxlib", "evosax", "numpy", "pillow")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "device": jax.devices()[0].device_kind,
        "mesh": describe_mesh(mesh),
        "processes": jax.process_count(),
        "versions": {"evolq_jax": __version__, **versions},
    }


def weights_fingerprint(params: Params) -> str:
    """16 hexadecimal digits of a SHA-256 over names, shapes and values of all parameters."""
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(params).items()):
        digest.update(json.dumps([name, leaf.shape]).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()[:16]
