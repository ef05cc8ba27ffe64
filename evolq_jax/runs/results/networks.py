"""How good networks are: the results of `search`, `baseline`, `evaluate` and `calibrate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evolq_jax.metrics import Delta, Scores
from evolq_jax.runs.provenance import Provenance
from evolq_jax.runs.results.common import Setting


@dataclass(frozen=True, kw_only=True)
class CalibrationResult:
    """What `run_calibrate` did.

    Attributes:
      run_dir: where the config and the first scales are.
      setting: the network and its quantizers.
      sites: quantized ones.
      scales: numbers in all sites' scales.
      num_calibration_images: used.
      seconds: of the calibration, without decoding.
    """

    kind: Literal["calibration"] = "calibration"
    run_dir: Path
    setting: Setting
    sites: int
    scales: int
    num_calibration_images: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class FloatAndInit:
    """The float network and the init. Apart, since a class that has a field `float` cannot name the type."""

    float: Scores
    init: Scores


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(FloatAndInit):
    """What `run_evaluate` found.

    Attributes:
      setting: the network and its quantizers.
      num_evaluation_images: scored.
      float: the float network.
      init: the calibrated network.
      final: the searched network; None where only calibrated.
      delta: `final - init`; None where there is no final.
    """

    kind: Literal["evaluation"] = "evaluation"
    setting: Setting
    num_evaluation_images: int
    final: Scores | None = None
    delta: Delta | None = None


@dataclass(frozen=True)
class Fitness:
    """On the images searched on, as the config defines it; lower is better."""

    init: float
    final: float


@dataclass(frozen=True)
class Moves:
    """Of a search: how many visits of blocks there were, and how many ended with other scales."""

    kept: int
    visits: int


@dataclass(frozen=True)
class SkippedImages:
    """Images that could not be read and were left out."""

    calibration: int
    evaluation: int


@dataclass(frozen=True, kw_only=True)
class TrajectoryPoint(Scores):
    """A network on the way from init to final.

    Attributes:
      candidate_images: what had been spent.
      calibration_fitness: of these scales.
    """

    candidate_images: float
    calibration_fitness: float


@dataclass(frozen=True, kw_only=True)
class Improvement(FloatAndInit):
    """What the results of searches and descents have in common: two networks, and the way between them.

    Attributes:
      run_dir: where everything is; not in the file.
      setting: the network and its quantizers.
      float: the float network.
      init: the calibrated network.
      final: the network with the scales found.
      delta: `final - init`, with 95 % intervals over images.
      calibration_fitness: what was minimised.
      budget_spent: candidate-images: candidates, each times the images and the share of the network it ran.
      num_calibration_images: used.
      num_evaluation_images: scored; nothing was selected on them.
      skipped_images: unreadable ones.
      seconds: of the whole run, over all processes that worked on it.
      seconds_calibration: of the calibration.
      seconds_search: of the search or the descent.
      provenance: what the numbers depend on beside the config.
      trajectory: from init to final, where the config has milestones.
    """

    run_dir: Path
    setting: Setting
    final: Scores
    delta: Delta
    calibration_fitness: Fitness
    budget_spent: float
    num_calibration_images: int
    num_evaluation_images: int
    skipped_images: SkippedImages
    seconds: float
    seconds_calibration: float
    seconds_search: float
    provenance: Provenance
    trajectory: tuple[TrajectoryPoint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SearchResult(Improvement):
    """What `run_search` found; `result.json` holds it.

    Attributes:
      budget: candidate-images that the config allows; None: as many as its passes take.
      evaluations: candidates scored.
      calibration_fitness_noise: mean standard deviation of the fitness among equals; None: not measured.
      moves: what became of the visits.
    """

    kind: Literal["search"] = "search"
    budget: int | None
    evaluations: int
    calibration_fitness_noise: float | None
    moves: Moves


@dataclass(frozen=True, kw_only=True)
class BaselineResult(Improvement):
    """What `run_baseline` found; `result.json` holds it.

    Attributes:
      budget: candidate-images; a backward pass counts as two.
      optimizer: its name.
      steps: taken.
    """

    kind: Literal["baseline"] = "baseline"
    budget: int
    optimizer: str
    steps: int
