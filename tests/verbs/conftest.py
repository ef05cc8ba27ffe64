from pathlib import Path
from typing import NamedTuple

import pytest

from evolq_jax.config.experiment import Experiment
from evolq_jax.runs.results.networks import SearchResult
from evolq_jax.verbs.search.run import run_search
from tests.small_run import small_config


class Finished(NamedTuple):
    config: Experiment
    path: Path
    result: SearchResult


@pytest.fixture(scope="session")
def finished(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A small search that has come to its end; not to be changed."""
    config, path = small_config(weights), tmp_path_factory.mktemp("runs") / "run"
    return Finished(config, path, run_search(config, path))
