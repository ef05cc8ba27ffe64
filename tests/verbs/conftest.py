from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from evolq_jax.config.experiment import Experiment
from evolq_jax.data.load import load_images
from evolq_jax.pipeline.load import load_network
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


@pytest.fixture(scope="module")
def pictures(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four digits as files, two of them in a folder below."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    images = load_images("digits:test", load_network("vit_digits").preprocessing, num=4, cache_dir=None)
    for number, pixels in enumerate(images.pixels):
        Image.fromarray(pixels[..., 0]).save(folder / ("more" if number > 1 else "") / f"{number}.png")
    return folder
