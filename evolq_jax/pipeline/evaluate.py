"""Scores of a network over many images, in bounded memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from evolq_jax.devices import hosts
from evolq_jax.metrics import Scores, paired_delta, score, summary
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.logits import compute_logits
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs
from evolq_jax.typing import Images, Params


def score_networks(
    setup: Setup, params: Params, networks: Mapping[str, QParams], evaluation: Images, watcher: Watcher
) -> dict[str, Any]:
    """Scores of the float network and of `params` at each of the scales, and `final - init`.

    Args:
      setup: the float network and the quantizers.
      params: the float parameters that belong to the scales (after calibration's chain).
      networks: `init` and, after a search, `final`.
      evaluation: images, with or without labels.
      watcher: follows the progress.
    """
    parts, preprocessing = setup.model.parts, setup.model.preprocessing

    def logits(name: str, specs: Specs, params: Params, qparams: QParams) -> np.ndarray:
        batch, progress = setup.config.evaluation_batch, watcher.stage(f"evaluating {name}")
        network = parts, specs, preprocessing, params, qparams
        shared = evaluation.first if hosts.num_processes() > 1 else None
        pixels = evaluation.pixels
        return compute_logits(*network, pixels, batch, progress, mesh=setup.mesh, first=shared)

    teacher = logits("float", (), setup.model.params, {})
    scores: dict[str, Scores] = {"float": score(teacher, teacher, evaluation.labels)}
    for name, qparams in networks.items():
        scores[name] = score(logits(name, setup.specs, params, qparams), teacher, evaluation.labels)
    result: dict[str, Any] = {name: summary(value) for name, value in scores.items()}
    if "final" in scores:
        result["delta"] = paired_delta(scores["init"], scores["final"], setup.config.seed)
    return result
