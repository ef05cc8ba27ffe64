"""What a run's `result.json` says beside the scores: what went in, and on what it ran."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from evolq_jax import __version__
from evolq_jax.data import fingerprint
from evolq_jax.errors import UserError
from evolq_jax.experiment.run_directory import RESULT, RunDirectory, open_run
from evolq_jax.experiment.setup import Setup
from evolq_jax.mesh import describe_mesh
from evolq_jax.trees import flatten
from evolq_jax.typing import Images, Params


def read_result(run_dir: str | Path) -> dict[str, Any]:
    """A finished run's `result.json`.

    Raises:
      UserError: it is no run, has not finished, or the file is damaged.
    """
    run = open_run(run_dir)
    if not run.has(RESULT):
        raise UserError(f"run '{run_dir}' has no {RESULT}: it has not finished")
    return _parse(run)


def describe(setup: Setup, num_evaluation_images: int) -> dict[str, Any]:
    """What a table of scores needs to be read: the setting, the seed, the images."""
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
    """What went in, so that it can be known again: numbers and fingerprints of images and weights."""
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
    """The devices, and the versions of what decides the numbers."""
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


def check_fingerprints(run: RunDirectory, now: dict[str, str]) -> None:
    """Holds weights and images against those a finished run had; others would give other numbers.

    Raises:
      UserError: one of them has changed.
    """
    if not run.has(RESULT):
        return
    for what, then in _parse(run).get("fingerprints", {}).items():
        if now.get(what, then) != then:
            raise UserError(
                f"the {what} of run '{run.path}' have changed since: bring them back, or search again"
            )


def _parse(run: RunDirectory) -> dict[str, Any]:
    try:
        return json.loads(run.read(RESULT))
    except json.JSONDecodeError as error:
        raise UserError(f"'{run.path / RESULT}' is damaged ({error})") from error
