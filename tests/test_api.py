import subprocess
import sys
from pathlib import Path

import pytest

import evolq_jax
from tests.small_run import write_weights


def test_importing_is_light() -> None:
    code = "import sys, evolq_jax; print('jax' in sys.modules, evolq_jax.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", evolq_jax.__version__]


def test_every_name_is_there() -> None:
    for name in evolq_jax.__all__:
        assert getattr(evolq_jax, name) is not None
    assert set(evolq_jax.__all__) <= set(dir(evolq_jax))
    assert set(evolq_jax.__all__) == {"__version__", *evolq_jax._HOMES}  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(AttributeError, match="no attribute 'run_serach'"):
        _ = evolq_jax.run_serach  # pyright: ignore[reportAttributeAccessIssue]


def test_six_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "weights.safetensors")

    from evolq_jax import DataConfig, Experiment, ModelConfig, plan_search, run_evaluate

    model = ModelConfig("vit_digits", "weights.safetensors")
    config = Experiment(model=model, data=DataConfig("digits:train", "digits:test", num_evaluation=100))
    assert plan_search(config).evaluation_images == 100
    scores = run_evaluate(config)
    assert scores.float.kl == 0.0 < scores.init.kl
