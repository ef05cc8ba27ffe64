"""Results made up by hand."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from evolq_jax.landscape.config import LandscapeConfig
from evolq_jax.landscape.jaggedness import Jaggedness, Spread
from evolq_jax.metrics import Delta, Interval, Scores
from evolq_jax.runs.provenance import Provenance
from evolq_jax.runs.results.common import Setting
from evolq_jax.runs.results.comparison import ComparisonResult, MethodResult, MetricOverSeeds, Wins
from evolq_jax.runs.results.landscape import LandscapeResult
from evolq_jax.runs.results.networks import (
    BaselineResult,
    Fitness,
    Moves,
    SearchResult,
    SkippedImages,
    TrajectoryPoint,
)

SETTING = Setting(
    name="vit_tiny_w4a8",
    seed=0,
    model="vit_tiny",
    scheme="fully_quantized",
    weight_bits=4,
    edge_weight_bits=8,
    activation_bits=8,
)
SCORES = Scores(top1=0.5, top5=0.75, agreement=1.0, kl=0.125, info_nce=7.0)
CHANGE = Interval(0.01, -0.002, 0.03)
DELTA = Delta(top1=CHANGE, top5=CHANGE, agreement=CHANGE, kl=CHANGE)
PROVENANCE = Provenance(
    fingerprints={"weights": "0123456789abcdef", "calibration images": "0" * 16},
    chunks={"images": 10, "candidates": 2, "inputs": "float32"},
    device="cpu",
    mesh={"candidate": 1, "data": 1},
    processes=1,
    versions={"jax": "0.10.2"},
)
BASELINE = BaselineResult(
    run_dir=Path("runs/x"),
    setting=SETTING,
    float=SCORES,
    init=SCORES,
    final=SCORES,
    delta=DELTA,
    calibration_fitness=Fitness(1.0, 0.5),
    budget_spent=600.0,
    num_calibration_images=100,
    num_evaluation_images=1300,
    skipped_images=SkippedImages(0, 0),
    seconds=3.0,
    seconds_calibration=0.5,
    seconds_search=2.0,
    provenance=PROVENANCE,
    budget=700,
    optimizer="adam",
    steps=9,
)
_SHARED = {key: value for key, value in vars(BASELINE).items() if key not in ("kind", "optimizer", "steps")}
SEARCH = SearchResult(**_SHARED, evaluations=81, calibration_fitness_noise=None, moves=Moves(3, 8))


def point(candidate_images: float, **scores: Any) -> TrajectoryPoint:
    """A point of a trajectory, at a calibration fitness of 1."""
    known = vars(replace(SCORES, **scores))
    return TrajectoryPoint(**known, candidate_images=candidate_images, calibration_fitness=1.0)


def jaggedness(mean: float, std: float | None, lines: int) -> Jaggedness:
    """The same number everywhere."""
    numbers = {1: Spread(mean, std, lines)}
    return Jaggedness(*[numbers] * len(fields(Jaggedness)))


LANDSCAPE = LandscapeResult(
    run_dir=Path("runs/y"),
    target="x",
    setting=SETTING,
    landscape=LandscapeConfig(),
    axes=("gaussian",),
    axis_labels=("random direction",),
    columns=("info_nce_t0.3", "kl"),
    units=("1", "nats"),
    left_out=(),
    num_images=9,
    moving_sites=("blocks/attn/qkv/weight",),
    moving_scales=768,
    direction_norms=(1.5,),
    cosine_of_axes=None,
    principal_shares=(),
    reflected_share=0.0,
    provenance=PROVENANCE,
    jaggedness={"info_nce_t0.3": jaggedness(0.12345, 0.0678, 5), "kl": jaggedness(0.5, None, 1)},
    seconds=12.0,
)
_OVER_SEEDS = MetricOverSeeds(init=CHANGE, final=CHANGE, change=CHANGE, wins=Wins(init=1.0, reference=0.5))
COMPARISON = ComparisonResult(
    run_dir=Path("runs/z"),
    name="comparison",
    budget=12345,
    seeds=(4, 5),
    reference="greedy",
    methods={
        "a_method_of_16_ch": MethodResult(
            top1=_OVER_SEEDS,
            agreement=_OVER_SEEDS,
            kl=_OVER_SEEDS,
            info_nce=_OVER_SEEDS,
            calibration_fitness=_OVER_SEEDS,
            seeds=(4, 5),
            budget_spent=12000.0,
            seconds_search=2.0,
        )
    },
    trajectories={"a_method_of_16_ch": ((point(0.0), point(100.0, kl=0.1)),)},
)
