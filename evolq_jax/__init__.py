"""Post-training quantization of vision transformers by evolutionary search over quantization scales.

    network = evolq_jax.load_network("vit_digits")
    images = evolq_jax.load_images("digits:train", network.preprocessing, num=128)
    quantized = evolq_jax.calibrate(network, images, evolq_jax.QuantConfig("matmul", weight_bits=4))
    quantized = evolq_jax.evolve(quantized, images, key=jax.random.key(0))
    logits = quantized(images.pixels)

Names are imported when they are first used, JAX with them: what JAX reads from the environment when it
starts (`JAX_PLATFORMS`, `XLA_FLAGS`) can be set after `import evolq_jax`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from evolq_jax.version import __version__

if TYPE_CHECKING:
    from evolq_jax.config.comparison import Comparison, Method
    from evolq_jax.config.experiment import (
        BaselineConfig,
        CalibrationConfig,
        CheckpointConfig,
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
    from evolq_jax.config.presets import faithful, fast, plain, strong, thorough, with_preset
    from evolq_jax.data.load import load_images
    from evolq_jax.devices.compile_cache import use_compile_cache
    from evolq_jax.errors import UserError
    from evolq_jax.integers.build import integer_model
    from evolq_jax.integers.load import load
    from evolq_jax.integers.model import IntegerModel
    from evolq_jax.integers.products import integer_products
    from evolq_jax.metrics import Delta, Interval, Scores
    from evolq_jax.network.network import Network
    from evolq_jax.objective.logits import info_nce, kl
    from evolq_jax.pipeline.load import load_network
    from evolq_jax.quantized.calibrate import calibrate
    from evolq_jax.quantized.network import QuantizedNetwork
    from evolq_jax.quantized.search import evolve
    from evolq_jax.quantized.size import Size, size_of
    from evolq_jax.runs.provenance import Provenance
    from evolq_jax.runs.results.common import Setting
    from evolq_jax.runs.results.comparison import ComparisonResult
    from evolq_jax.runs.results.files import read_result
    from evolq_jax.runs.results.landscape import LandscapeResult
    from evolq_jax.runs.results.networks import (
        BaselineResult,
        CalibrationResult,
        EvaluationResult,
        SearchResult,
    )
    from evolq_jax.typing import Images, Preprocessing
    from evolq_jax.verbs.baseline import ensure_baseline, resume_baseline, run_baseline
    from evolq_jax.verbs.calibrate import ensure_calibrated, run_calibrate
    from evolq_jax.verbs.classify import run_classify
    from evolq_jax.verbs.compare.plan import ComparisonPlan, plan_compare
    from evolq_jax.verbs.compare.run import run_compare
    from evolq_jax.verbs.draw import draw_landscapes
    from evolq_jax.verbs.evaluate import run_evaluate
    from evolq_jax.verbs.export import ExportResult, run_export
    from evolq_jax.verbs.info import Info, read_info
    from evolq_jax.verbs.landscape.plan import LandscapePlan, plan_landscape
    from evolq_jax.verbs.landscape.record import read_landscape
    from evolq_jax.verbs.landscape.run import run_landscape
    from evolq_jax.verbs.models import list_models
    from evolq_jax.verbs.pack import PackResult, run_pack
    from evolq_jax.verbs.predict import Prediction, PredictionResult, run_predict
    from evolq_jax.verbs.search.plan import SearchPlan, plan_search
    from evolq_jax.verbs.search.run import ensure_search, resume_search, run_search
    from evolq_jax.verbs.train import TrainingResult, run_training
    from evolq_jax.verbs.verify import Verification, run_verify

# Where each public name lives: here, above for type checkers, and in `__all__`.
_MODULES = {
    "evolq_jax.config.comparison": ("Comparison", "Method"),
    "evolq_jax.config.experiment": (
        "BaselineConfig",
        "CalibrationConfig",
        "CheckpointConfig",
        "DataConfig",
        "Experiment",
        "LandscapeConfig",
        "ModelConfig",
        "PreprocessingConfig",
        "QuantConfig",
        "Rule",
        "SearchConfig",
        "TrainConfig",
        "TrainExperiment",
    ),
    "evolq_jax.config.load": ("load_config",),
    "evolq_jax.config.presets": ("faithful", "fast", "plain", "strong", "thorough", "with_preset"),
    "evolq_jax.data.load": ("load_images",),
    "evolq_jax.devices.compile_cache": ("use_compile_cache",),
    "evolq_jax.errors": ("UserError",),
    "evolq_jax.metrics": ("Delta", "Interval", "Scores"),
    "evolq_jax.network.network": ("Network",),
    "evolq_jax.objective.logits": ("info_nce", "kl"),
    "evolq_jax.pipeline.load": ("load_network",),
    "evolq_jax.quantized.calibrate": ("calibrate",),
    "evolq_jax.integers.build": ("integer_model",),
    "evolq_jax.integers.load": ("load",),
    "evolq_jax.integers.model": ("IntegerModel",),
    "evolq_jax.integers.products": ("integer_products",),
    "evolq_jax.quantized.network": ("QuantizedNetwork",),
    "evolq_jax.quantized.search": ("evolve",),
    "evolq_jax.quantized.size": ("Size", "size_of"),
    "evolq_jax.runs.provenance": ("Provenance",),
    "evolq_jax.runs.results.common": ("Setting",),
    "evolq_jax.runs.results.comparison": ("ComparisonResult",),
    "evolq_jax.runs.results.files": ("read_result",),
    "evolq_jax.runs.results.landscape": ("LandscapeResult",),
    "evolq_jax.runs.results.networks": (
        "BaselineResult",
        "CalibrationResult",
        "EvaluationResult",
        "SearchResult",
    ),
    "evolq_jax.typing": ("Images", "Preprocessing"),
    "evolq_jax.verbs.baseline": ("ensure_baseline", "resume_baseline", "run_baseline"),
    "evolq_jax.verbs.calibrate": ("ensure_calibrated", "run_calibrate"),
    "evolq_jax.verbs.compare.plan": ("ComparisonPlan", "plan_compare"),
    "evolq_jax.verbs.compare.run": ("run_compare",),
    "evolq_jax.verbs.draw": ("draw_landscapes",),
    "evolq_jax.verbs.classify": ("run_classify",),
    "evolq_jax.verbs.evaluate": ("run_evaluate",),
    "evolq_jax.verbs.export": ("ExportResult", "run_export"),
    "evolq_jax.verbs.info": ("Info", "read_info"),
    "evolq_jax.verbs.landscape.plan": ("LandscapePlan", "plan_landscape"),
    "evolq_jax.verbs.landscape.record": ("read_landscape",),
    "evolq_jax.verbs.landscape.run": ("run_landscape",),
    "evolq_jax.verbs.models": ("list_models",),
    "evolq_jax.verbs.pack": ("PackResult", "run_pack"),
    "evolq_jax.verbs.predict": ("Prediction", "PredictionResult", "run_predict"),
    "evolq_jax.verbs.search.plan": ("SearchPlan", "plan_search"),
    "evolq_jax.verbs.search.run": ("ensure_search", "resume_search", "run_search"),
    "evolq_jax.verbs.train": ("TrainingResult", "run_training"),
    "evolq_jax.verbs.verify": ("Verification", "run_verify"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BaselineConfig",
    "BaselineResult",
    "CalibrationConfig",
    "CalibrationResult",
    "CheckpointConfig",
    "Comparison",
    "ComparisonPlan",
    "ComparisonResult",
    "DataConfig",
    "Delta",
    "EvaluationResult",
    "Experiment",
    "ExportResult",
    "Images",
    "Info",
    "IntegerModel",
    "Interval",
    "LandscapeConfig",
    "LandscapePlan",
    "LandscapeResult",
    "Method",
    "ModelConfig",
    "Network",
    "PackResult",
    "Prediction",
    "PredictionResult",
    "Preprocessing",
    "PreprocessingConfig",
    "Provenance",
    "QuantConfig",
    "QuantizedNetwork",
    "Rule",
    "Scores",
    "SearchConfig",
    "SearchPlan",
    "SearchResult",
    "Setting",
    "Size",
    "TrainConfig",
    "TrainExperiment",
    "TrainingResult",
    "UserError",
    "Verification",
    "__version__",
    "calibrate",
    "draw_landscapes",
    "ensure_baseline",
    "ensure_calibrated",
    "ensure_search",
    "evolve",
    "faithful",
    "fast",
    "info_nce",
    "integer_model",
    "integer_products",
    "kl",
    "list_models",
    "load",
    "load_config",
    "load_images",
    "load_network",
    "plain",
    "plan_compare",
    "plan_landscape",
    "plan_search",
    "read_info",
    "read_landscape",
    "read_result",
    "resume_baseline",
    "resume_search",
    "run_baseline",
    "run_calibrate",
    "run_classify",
    "run_compare",
    "run_evaluate",
    "run_export",
    "run_landscape",
    "run_pack",
    "run_predict",
    "run_search",
    "run_training",
    "run_verify",
    "size_of",
    "strong",
    "thorough",
    "use_compile_cache",
    "with_preset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'evolq_jax' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
