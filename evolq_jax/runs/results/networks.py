"""The results of `search`, `baseline`, `evaluate` and `calibrate`: how good networks are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evolq_jax.metrics import Delta, Scores
from evolq_jax.quantized.size import Size
from evolq_jax.runs.provenance import Provenance
from evolq_jax.runs.results.common import Setting


@dataclass(frozen=True, kw_only=True)
class CalibrationResult:
    """The result of `run_calibrate`.

    Attributes:
      run_dir: the directory with the config and the first scales.
      setting: the network and its quantizers.
      sites: the number of quantized sites.
      scales: the number of scales of all sites.
      num_calibration_images: the number of calibration images.
      seconds: the seconds of the calibration, without decoding.
    """

    kind: Literal["calibration"] = "calibration"
    run_dir: Path
    setting: Setting
    sites: int
    scales: int
    num_calibration_images: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The networks from float to the calibrated one. A class with a field `float` cannot name that type.

    Attributes:
      float: the float network.
      ranges: the network after the chain's first link, the ranges; None: the chain has no other link.
      init: the network after the chain.
      from_float: what the last network lost against the float one, with 95 % intervals over images. None: the
        result is of an older version.
      size: of the last network; None: the result is of an older version.
    """

    float: Scores
    ranges: Scores | None = None
    init: Scores
    from_float: Delta | None = None
    size: Size | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(Stages):
    """The result of `run_evaluate`.

    Attributes:
      setting: the network and its quantizers.
      num_evaluation_images: the number of images that were scored.
      float: the float network.
      init: the calibrated network.
      final: the searched network; None: there was only a calibration.
      delta: `final - init`; None: there is no final.
      found_by: the kind of the run that ended with the final network; None: it has not finished.
    """

    kind: Literal["evaluation"] = "evaluation"
    setting: Setting
    num_evaluation_images: int
    final: Scores | None = None
    delta: Delta | None = None
    found_by: Literal["search", "baseline"] | None = None


@dataclass(frozen=True)
class Fitness:
    """The fitness on the images searched on, as the config defines it. Lower is better."""

    init: float
    final: float


@dataclass(frozen=True)
class Moves:
    """The moves of a search: how many visits of blocks there were, and how many kept new scales."""

    kept: int
    visits: int


@dataclass(frozen=True)
class SkippedImages:
    """The number of images that could not be read and were left out."""

    calibration: int
    evaluation: int


@dataclass(frozen=True, kw_only=True)
class TrajectoryPoint(Scores):
    """A network on the way from init to final.

    Attributes:
      candidate_images: the candidate-images spent so far.
      calibration_fitness: the fitness of these scales.
    """

    candidate_images: float
    calibration_fitness: float


@dataclass(frozen=True, kw_only=True)
class Improvement(Stages):
    """The common part of results of searches and descents: two networks, and the way between them.

    Attributes:
      run_dir: the directory; it is not in the file.
      setting: the network and its quantizers.
      float: the float network.
      init: the calibrated network.
      final: the network with the scales found.
      delta: `final - init`, with 95 % intervals over images.
      calibration_fitness: the fitness that was minimised.
      budget_spent: in candidate-images. A candidate counts its images times the share of the network it ran.
      num_calibration_images: the number of calibration images.
      num_evaluation_images: the number of images that were scored. Nothing was selected on them.
      skipped_images: the number of unreadable images.
      seconds: the seconds of the whole run, over all processes that worked on it.
      seconds_calibration: the seconds of the calibration.
      seconds_search: the seconds of the search or the descent.
      provenance: what the numbers depend on, beside the config.
      trajectory: the networks from init to final, if the config has milestones.
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
    """The result of `run_search`. `result.json` holds it.

    Attributes:
      budget: candidate-images that the config allows; None: as many as its passes take.
      evaluations: the number of candidates that were scored.
      calibration_fitness_noise: mean standard deviation of the fitness among equals; None: not measured.
      moves: how many visits kept new scales.
    """

    kind: Literal["search"] = "search"
    budget: int | None
    evaluations: int
    calibration_fitness_noise: float | None
    moves: Moves


@dataclass(frozen=True, kw_only=True)
class BaselineResult(Improvement):
    """The result of `run_baseline`. `result.json` holds it.

    Attributes:
      budget: in candidate-images; a backward pass counts as two.
      optimizer: the optimiser's name.
      steps: the number of steps.
    """

    kind: Literal["baseline"] = "baseline"
    budget: int
    optimizer: str
    steps: int
