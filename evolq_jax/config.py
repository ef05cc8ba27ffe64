"""An experiment as one frozen dataclass, its presets, and its JSON form.

Config files (`configs/*.py`) hold `config = Experiment(...)`; the command line overrides single fields.
"""

import importlib.util
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cattrs import BaseValidationError, transform_error
from cattrs.preconf.json import make_converter

from evolq_jax.errors import UserError, suggestion
from evolq_jax.quant.spec import QuantConfig
from evolq_jax.search.blockwise import SearchConfig

Preset = Literal["default", "faithful"]


@dataclass(frozen=True)
class ModelConfig:
    """Which network, with which weights.

    Attributes:
      name: of the registry (`evolq models`).
      weights: `.safetensors` or `.npz` file, folder, or `hf-hub:owner/name`; None: the weights that
        evolq_jax ships for this model.
    """

    name: str = "vit_tiny_patch16_224"
    weights: str | None = None


@dataclass(frozen=True)
class DataConfig:
    """Calibration and evaluation images. The evaluation set only measures; nothing is selected on it.

    Attributes:
      calibration: folder (`<class>/<file>` or flat), `.npz` file, or `digits:train`. Labels are not used.
      evaluation: the same for the evaluation images; `digits:test`.
      class_index: file with a class id a line in index order, for folders; without it no top-1.
      num_calibration: images drawn from `calibration` by the seed; None: all.
      num_evaluation: images drawn from `evaluation`, the same for every seed; None: all.
      evaluation_resize: shorter side of evaluation images before the crop; `checkpoint`: as the
        checkpoint says; None: not resized.
      on_corrupt: what an unreadable image does: `error`, or `skip` (counted in the result).
      cache: folder for decoded images; `auto`: $EVOLQ_CACHE or ~/.cache/evolq_jax; None: no cache.
    """

    calibration: str = "digits:train"
    evaluation: str = "digits:test"
    class_index: str | None = None
    num_calibration: int | None = 100
    num_evaluation: int | None = None
    evaluation_resize: int | Literal["checkpoint"] | None = "checkpoint"
    on_corrupt: Literal["error", "skip"] = "error"
    cache: str | None = "auto"


@dataclass(frozen=True)
class CalibrationConfig:
    """How the first scales are found.

    Attributes:
      chain: initialisers in order; `ranges` is the paper's.
      batch_size: images of one batch: smoothing observers update, and omse and ptf score, per batch.
      image_chunk: images run at once.
    """

    chain: tuple[str, ...] = ("ranges",)
    batch_size: int = 100
    image_chunk: int = 10


@dataclass(frozen=True)
class Experiment:
    """Everything a run depends on.

    Attributes:
      name: of the run's directory and tables.
      model: the network and its weights.
      data: calibration and evaluation images.
      quant: which sites are quantized and how.
      calibration: the initialisation.
      search: the evolutionary search.
      evaluation_batch: images of one evaluation batch.
      seed: draws the calibration images and drives the search.
    """

    name: str = "experiment"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    evaluation_batch: int = 20
    seed: int = 0


def faithful(config: Experiment) -> Experiment:
    """The released code's settings, at this experiment's bits, scheme, passes and data.

    What is not reproduced, on purpose: the selection of the result on the evaluation set.
    """
    quant = replace(
        config.quant,
        weight_observer="minmax",
        activation_observer="omse",
        residual_observer="ptf",
        integer_layer_norm=config.quant.scheme == "fully_quantized",
        bias_correction=True,
    )
    search = SearchConfig(
        passes=config.search.passes,
        generations=3,
        epsilon=1e-4 if config.quant.weight_bits == 8 else 1e-3,
        mutation="absolute",
        teacher="integer_layer_norm" if config.quant.scheme == "fully_quantized" else "float",
        rescore_start=True,
        batch_size=config.search.batch_size,
        image_chunk=config.search.image_chunk,
        population_chunk=config.search.population_chunk,
    )
    return replace(config, quant=quant, search=search)


def with_preset(config: Experiment, preset: Preset) -> Experiment:
    """The config under a preset: `default` is the config as its file says."""
    return faithful(config) if preset == "faithful" else config


def load_config(path: str | Path, kind: type = Experiment) -> Any:
    """The `config` of a config file.

    Raises:
      UserError: there is no such file, it does not run, or its `config` is not of this kind.
    """
    path = Path(path)
    if not path.is_file():
        siblings = [str(p) for p in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        raise UserError(f"no config file at '{path}'{suggestion(str(path), siblings)}")
    spec = importlib.util.spec_from_file_location(f"evolq_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"config file '{path}' is not a Python file; name one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"config file '{path}' failed to run: {type(error).__name__}: {error}") from error
    config = getattr(module, "config", None)
    if not isinstance(config, kind):
        raise UserError(f"config file '{path}' defines no `config = {kind.__name__}(...)`")
    return config


_converter = make_converter(forbid_extra_keys=True)


def to_json(config: Experiment) -> str:
    """The config as JSON, for the run directory."""
    return json.dumps(_converter.unstructure(config), indent=2) + "\n"


def from_json(text: str, where: str) -> Experiment:
    """The inverse of `to_json`; `where` names the text's source in errors.

    Raises:
      UserError: it is no JSON, or lacks, misspells or mistypes a field.
    """
    try:
        return _converter.structure(json.loads(text), Experiment)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    except BaseValidationError as error:
        raise UserError(f"{where}: not a config: {'; '.join(transform_error(error))}") from error
