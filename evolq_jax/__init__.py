"""Post-training quantization of vision transformers by evolutionary search over quantization scales.

    from evolq_jax import load_config, run_search

    config = load_config("configs/digits_w2a8.py")
    result = run_search(config)
    print(result["init"]["top1"], result["final"]["top1"], result["delta"]["top1"])

Names are imported when they are first used, JAX with them: what JAX reads from the environment when it
starts (`JAX_PLATFORMS`, `XLA_FLAGS`) can be set after `import evolq_jax`.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from evolq_jax.comparison import Comparison, Method
    from evolq_jax.config import (
        BaselineConfig,
        CalibrationConfig,
        CheckpointConfig,
        DataConfig,
        Experiment,
        LandscapeConfig,
        ModelConfig,
        QuantConfig,
        Rule,
        SearchConfig,
        TrainConfig,
        TrainExperiment,
        load_config,
    )
    from evolq_jax.errors import UserError
    from evolq_jax.experiment.baseline import run_baseline
    from evolq_jax.experiment.compare.run import plan_compare, run_compare
    from evolq_jax.experiment.landscape.plan import plan_landscape
    from evolq_jax.experiment.landscape.record import read_landscape
    from evolq_jax.experiment.landscape.run import run_landscape
    from evolq_jax.experiment.plan import plan_search
    from evolq_jax.experiment.result import read_result
    from evolq_jax.experiment.resume import ensure_search, resume_search
    from evolq_jax.experiment.run import run_calibrate, run_evaluate, run_search
    from evolq_jax.experiment.setup import list_models
    from evolq_jax.experiment.train import run_training
    from evolq_jax.presets import faithful, fast, strong, thorough, with_preset

_MODULES = {
    "evolq_jax.comparison": ("Comparison", "Method"),
    "evolq_jax.config": (
        "BaselineConfig",
        "CalibrationConfig",
        "CheckpointConfig",
        "DataConfig",
        "Experiment",
        "LandscapeConfig",
        "ModelConfig",
        "QuantConfig",
        "Rule",
        "SearchConfig",
        "TrainConfig",
        "TrainExperiment",
        "load_config",
    ),
    "evolq_jax.errors": ("UserError",),
    "evolq_jax.experiment.baseline": ("run_baseline",),
    "evolq_jax.experiment.compare.run": ("plan_compare", "run_compare"),
    "evolq_jax.experiment.landscape.plan": ("plan_landscape",),
    "evolq_jax.experiment.landscape.record": ("read_landscape",),
    "evolq_jax.experiment.landscape.run": ("run_landscape",),
    "evolq_jax.experiment.plan": ("plan_search",),
    "evolq_jax.experiment.result": ("read_result",),
    "evolq_jax.experiment.resume": ("ensure_search", "resume_search"),
    "evolq_jax.experiment.run": ("run_calibrate", "run_evaluate", "run_search"),
    "evolq_jax.experiment.setup": ("list_models",),
    "evolq_jax.experiment.train": ("run_training",),
    "evolq_jax.presets": ("faithful", "fast", "strong", "thorough", "with_preset"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BaselineConfig",
    "CalibrationConfig",
    "CheckpointConfig",
    "Comparison",
    "DataConfig",
    "Experiment",
    "LandscapeConfig",
    "Method",
    "ModelConfig",
    "QuantConfig",
    "Rule",
    "SearchConfig",
    "TrainConfig",
    "TrainExperiment",
    "UserError",
    "__version__",
    "ensure_search",
    "faithful",
    "fast",
    "list_models",
    "load_config",
    "plan_compare",
    "plan_landscape",
    "plan_search",
    "read_landscape",
    "read_result",
    "resume_search",
    "run_baseline",
    "run_calibrate",
    "run_compare",
    "run_evaluate",
    "run_landscape",
    "run_search",
    "run_training",
    "strong",
    "thorough",
    "with_preset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evolq_jax' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
