"""Experiments and comparisons as frozen dataclasses: data only."""

from evolq_jax.config.comparison import Comparison, Method
from evolq_jax.config.experiment import (
    BaselineConfig,
    BrecqConfig,
    CalibrationConfig,
    CheckpointConfig,
    ClipConfig,
    DataConfig,
    Experiment,
    LandscapeConfig,
    ModelConfig,
    PreprocessingConfig,
    QuantConfig,
    Rule,
    SearchConfig,
    TrainConfig,
    TrainExperiment,
)
from evolq_jax.config.load import load_config
from evolq_jax.config.presets import faithful, fast, strong, thorough, with_preset

__all__ = [
    "BaselineConfig",
    "BrecqConfig",
    "CalibrationConfig",
    "CheckpointConfig",
    "ClipConfig",
    "Comparison",
    "DataConfig",
    "Experiment",
    "LandscapeConfig",
    "Method",
    "ModelConfig",
    "PreprocessingConfig",
    "QuantConfig",
    "Rule",
    "SearchConfig",
    "TrainConfig",
    "TrainExperiment",
    "faithful",
    "fast",
    "load_config",
    "strong",
    "thorough",
    "with_preset",
]
