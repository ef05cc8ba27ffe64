"""Scores of networks over many images, in bounded memory."""

from collections.abc import Mapping

import numpy as np

from evolq_jax.devices import hosts
from evolq_jax.metrics import ImageScores, score
from evolq_jax.network.network import Network
from evolq_jax.pipeline.load import Setup
from evolq_jax.pipeline.watcher import Watcher
from evolq_jax.quantized.logits import compile_logits_ahead, compute_logits
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.typing import Images

FLOAT = "float"


def compile_ahead_of_scores(setup: Setup, network: Network | QuantizedNetwork, num_images: int) -> None:
    """Begins to compile what `score_networks` runs for a network. On several devices it does nothing."""
    if setup.mesh is None:
        compile_logits_ahead(network, num_images, setup.config.evaluation_batch)


def score_networks(
    setup: Setup, networks: Mapping[str, QuantizedNetwork], *, evaluation: Images, watcher: Watcher
) -> dict[str, ImageScores]:
    """Scores of the float network, under `FLOAT`, and of quantized networks, under their names.

    Args:
      setup: the float network.
      networks: by name.
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
    for name, quantized in networks.items():
        scores[name] = score(logits(name, quantized), teacher, evaluation.labels)
    return scores
