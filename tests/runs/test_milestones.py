import json
import math
from pathlib import Path

import jax.numpy as jnp
import pytest

from evolq_jax.errors import UserError
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.runs.directory import RunDirectory
from evolq_jax.runs.milestones import MILESTONES, Milestone, Milestones, read_milestones

SPECS = (("head/weight", QuantSpec()),)
BLANK: QParams = {"head/weight": SiteQParams(jnp.ones((1, 2)), jnp.zeros((1, 2)), jnp.full((1, 1), 4.0))}


def scales(value: float) -> QParams:
    return {site: qparams._replace(scale=jnp.full((1, 2), value)) for site, qparams in BLANK.items()}


def test_the_best_scales_are_kept_as_each_share_of_the_budget_is_spent(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    milestones = Milestones(run, SPECS, 4, budget=100)
    for spent, fitness in ((0, math.inf), (30, 0.9), (40, 0.8), (80, 0.5), (100, 0.4)):
        milestones.offer(spent, fitness, scales(spent + 1.0))
    found = read_milestones(run, SPECS, BLANK)
    # The marks are 25, 50 and 75; before the first offer with a fitness, the start's is not known.
    assert [passed for passed, _ in found] == [Milestone(25.0), Milestone(50.0, 0.8), Milestone(75.0, 0.8)]
    kept = [float(qparams["head/weight"].scale[0, 0]) for _, qparams in found]
    assert kept == [1.0, 41.0, 41.0]
    written = json.loads((tmp_path / MILESTONES).read_text())
    assert written[0] == {"candidate_images": 25.0, "calibration_fitness": None}


def test_a_run_without_milestones_has_none(tmp_path: Path) -> None:
    assert read_milestones(RunDirectory(tmp_path), SPECS, BLANK) == []


@pytest.mark.parametrize("text", ["[", '[{"images": 3}]'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / MILESTONES).write_text(text)
    with pytest.raises(UserError, match=r"milestones\.json'"):
        read_milestones(RunDirectory(tmp_path), SPECS, BLANK)
