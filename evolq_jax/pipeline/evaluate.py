"""Scores of a network over many images, in bounded memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from evolq_jax.devices import hosts
from evolq_jax.metrics import Scores, paired_delta, score, summary
from evolq_jax.network.network import Network
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.quantized.network import QuantizedNetwork
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

    def logits(name: str, network: Network | QuantizedNetwork) -> np.ndarray:
        return compute_logits(
            network,
            evaluation.pixels,
            setup.config.evaluation_batch,
            mesh=setup.mesh,
            first=evaluation.first if hosts.num_processes() > 1 else None,
            progress=watcher.stage(f"evaluating {name}"),
        )

    teacher = logits("float", setup.model)
    scores: dict[str, Scores] = {"float": score(teacher, teacher, evaluation.labels)}
    for name, qparams in networks.items():
        quantized = QuantizedNetwork(setup.model, params, qparams, setup.specs)
        scores[name] = score(logits(name, quantized), teacher, evaluation.labels)
    result: dict[str, Any] = {name: summary(value) for name, value in scores.items()}
    if "final" in scores:
        result["delta"] = paired_delta(scores["init"], scores["final"], setup.config.seed)
    return result
