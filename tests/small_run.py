"""An experiment of seconds: a ViT for the digits with random weights, few images, one generation a block."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from evolq_jax.config.experiment import (
    CalibrationConfig,
    DataConfig,
    Experiment,
    ModelConfig,
    QuantConfig,
    SearchConfig,
)
from evolq_jax.models.checkpoint import save_params
from evolq_jax.models.registry import get_entry
from evolq_jax.trees import flatten, unflatten
from tests.plain import PLAIN

BLOCKS = 4  # of vit_digits
BATCH = 10
CONFIG_FILE = """\
from pathlib import Path
from tests.small_run import small_config
config = small_config(Path("weights.safetensors"))
"""


def write_weights(
    path: Path, model: str = "vit_digits", changes: Mapping[str, np.ndarray] | None = None
) -> Path:
    """A model's weights from numpy's generator, of about unit gain; `changes` replaces leaves."""
    entry = get_entry(model)
    shapes = flatten(jax.eval_shape(lambda key: entry.family.init(key, entry.config), jax.random.key(0)))
    generator = np.random.default_rng(0)
    leaves: dict[str, np.ndarray] = {}
    for name, leaf in shapes.items():
        noise = generator.standard_normal(leaf.shape)
        gain = 1 / np.sqrt(leaf.shape[-2]) if name.endswith("weight") and leaf.ndim >= 2 else 0.1
        one = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        leaves[name] = (one + gain * noise).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_params(path, unflatten(leaves | dict(changes or {})), {"model": model})
    return path


def small_config(weights: Path, **changes: Any) -> Experiment:
    """Programs of few sizes, since compiling takes most of the time; `changes` replaces fields."""
    config = Experiment(
        name="small",
        model=ModelConfig("vit_digits", str(weights)),
        data=DataConfig(num_calibration=2 * BATCH, num_evaluation=3 * BATCH, cache=None),
        quant=QuantConfig(
            "matmul",
            weight_bits=3,
            activation_bits=8,
            weight_observer="minmax",
            **PLAIN,
        ),
        calibration=CalibrationConfig(chain=("ranges",), batch_size=BATCH, image_chunk=BATCH),
        search=SearchConfig(
            algorithm="EvolQ",
            sites=("*/attn/qkv/weight",),
            parametrization="raw",
            passes=2,
            generations=1,
            population_size=1,
            batch_size=BATCH,
            holdout=0.0,
        ),
        evaluation_batch=BATCH,
    )
    return replace(config, **changes)
