"""A finished run, scored on images that are not the run's."""

from dataclasses import replace
from pathlib import Path

import pytest

from evolq_jax.errors import UserError
from evolq_jax.verbs.evaluate import run_evaluate
from tests.verbs.conftest import Finished


def test_the_same_images_give_the_run_s_scores(finished: Finished) -> None:
    again = run_evaluate(finished.path, data=finished.config.data)
    assert (again.float, again.init, again.final) == (
        finished.result.float,
        finished.result.init,
        finished.result.final,
    )


def test_other_images_give_others(finished: Finished) -> None:
    data = replace(finished.config.data, num_evaluation=50)
    other = run_evaluate(finished.path, data=data)
    assert other.num_evaluation_images == 50
    assert other.final != finished.result.final
    assert other.found_by == "search"


def test_the_run_s_own_images_must_be_there(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        run_evaluate(finished.path, data=replace(finished.config.data, evaluation=str(tmp_path / "none")))
