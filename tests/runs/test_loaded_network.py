import json
from dataclasses import replace
from pathlib import Path

import pytest

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.network.network import Network
from evolq_jax.pipeline.load import load_model
from evolq_jax.runs.directory import CONFIG, begin_run, hold_directory
from evolq_jax.runs.loaded_network import check_network, record_network
from tests.small_run import small_config, write_weights


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return load_model(small_config(write_weights(tmp_path / "weights.safetensors"))).model


def test_a_run_records_its_network(network: Network, tmp_path: Path) -> None:
    config = Experiment(seed=3)
    with hold_directory(tmp_path / "run", "x") as run, begin_run(run, config):
        check_network(run, network)  # nothing is recorded yet
        record_network(run, config, network)
        record_network(run, config, network)
    recorded = json.loads((tmp_path / "run" / CONFIG).read_text())["network"]
    assert recorded["architecture"] == network.architecture
    assert recorded["architecture"]["num_heads"] == 4
    assert recorded["preprocessing"]["mean"] == [0.5]
    assert run.config() == config


def test_a_run_is_not_continued_with_another_network(network: Network, tmp_path: Path) -> None:
    config = Experiment()
    with hold_directory(tmp_path / "run", "x") as run, begin_run(run, config):
        record_network(run, config, network)
        brighter = replace(network, preprocessing=replace(network.preprocessing, mean=(0.4,)))
        with pytest.raises(UserError, match=r"has preprocessing\.mean \[0\.5\], and now it is \[0\.4\]"):
            record_network(run, config, brighter)
        assert run.config() == config
        with pytest.raises(UserError, match=r"has architecture\.num_heads 4, and now it is 2"):
            check_network(run, replace(network, config=replace(network.config, num_heads=2)))


def test_an_option_that_the_run_s_version_did_not_know(network: Network, tmp_path: Path) -> None:
    config = Experiment()
    with hold_directory(tmp_path / "run", "x") as run, begin_run(run, config):
        record_network(run, config, network)
        began = json.loads(run.read(CONFIG))
        del began["network"]["architecture"]["distilled"], began["network"]["preprocessing"]["crop_mode"]
        run.write(CONFIG, json.dumps(began).encode())
        check_network(run, network)
