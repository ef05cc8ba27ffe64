"""Scores of networks over many images, in bounded memory."""

from collections.abc import Mapping

import numpy as np

from evolq_jax.devices import hosts
from evolq_jax.metrics import ImageScores, score
from evolq_jax.network.network import Network
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quant.qparams import QParams
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.typing import Images, Params

FLOAT = "float"


def score_networks(
    setup: Setup, params: Params, networks: Mapping[str, QParams], *, evaluation: Images, watcher: Watcher
) -> dict[str, ImageScores]:
    """Scores of the float network, under `FLOAT`, and of `params` at each of the qparams, under their names.

    Args:
      setup: the float network and the quantizers.
      params: the float parameters that belong to the qparams (after calibration's chain).
      networks: qparams by name.
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

    teacher = logits(FLOAT, setup.model)
    scores = {FLOAT: score(teacher, teacher, evaluation.labels)}
    for name, qparams in networks.items():
        quantized = QuantizedNetwork(setup.model, params, qparams, setup.specs)
        scores[name] = score(logits(name, quantized), teacher, evaluation.labels)
    return scores
