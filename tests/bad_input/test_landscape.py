from dataclasses import replace
from pathlib import Path

import pytest

from evolq_jax.config.experiment import Experiment, LandscapeConfig
from evolq_jax.errors import UserError
from evolq_jax.runs.config_json import to_json
from tests.bad_input.conftest import Refuse, npz
from tests.small_run import small_config


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--landscape.direction", "gausian"),
            "invalid choice 'gausian' for argument",
        ),
        (("--landscape.losses", "kl", "ce"), "invalid choice 'ce'"),
        (("--landscape.points", "2"), "landscape.points must be at least 3, not 2"),
        (("--landscape.epsilon", "0"), "landscape.epsilon must be positive, not 0.0"),
        (("--landscape.epsilon", "-1"), "landscape.epsilon must be positive, not -1.0"),
        (("--landscape.directions", "0"), "landscape.directions must be at least 1, not 0"),
        (("--landscape.low", "1"), "landscape.low (1.0) must be below landscape.high (1.0)"),
        (("--landscape.temperatures", "0"), "landscape.temperatures must be positive, not 0.0"),
        (("--landscape.sites", "*/qvk/weight"), "'*/qvk/weight' matches no quantization site"),
        (("--landscape.sites", "head/weight", "--landscape.kind", "layers"), "name no site of the network's"),
        (("--landscape.blocks", "4"), "landscape.blocks names block 4, but they run from 0 to 3"),
        (("--landscape.second", "ratio"), "landscape.second is a plane's"),
        (("--landscape.kind", "plane", "--landscape.direction", "ratio"), "a plane needs two"),
        (("--landscape.kind", "layers", "--landscape.direction", "between"), "one of the whole network"),
        (("--landscape.origin", "final"), "landscape.origin 'final' is a finished run's"),
        (("--landscape.direction", "between"), "'between' needs two results"),
        (("--landscape.direction", "principal"), "needs 1 or more finished runs in landscape.results"),
        (("--landscape.towards", "nowhere", "--landscape.direction", "between"), "'nowhere' is no run"),
        (("--landscape.num-images", "15"), "15 images are no whole number of info_nce's batches of 10"),
        (("--landscape.num-images", "300"), "asks for 300 images, but there are 20 calibration ones"),
        (
            ("--lanscape.points", "3"),
            "did you mean '--landscape.points'?",
        ),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["landscape", "plan"])
def test_fields(refuse: Refuse, args: tuple[str, ...], more: tuple[str, ...], message: str) -> None:
    small = ("--landscape.num-images", "10", "--landscape.batch-size", "10")
    assert message in refuse("landscape", "config.py", *more, *small, *args)


def test_names_from_python() -> None:
    with pytest.raises(
        UserError, match=r"landscape\.direction has the unknown value 'gausian'; did you mean 'gaussian'"
    ):
        LandscapeConfig(direction="gausian")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"landscape\.losses\[0\] has the unknown value 'ce'"):
        LandscapeConfig(losses=("ce",))  # type: ignore[arg-type]
    for empty in ("sites", "losses", "temperatures"):
        with pytest.raises(UserError, match=rf"landscape\.{empty} is empty"):
            replace(LandscapeConfig(), **{empty: ()})


@pytest.fixture
def calibrated(here: Path) -> Path:
    """A run directory that a search has not finished in."""
    path = here / "run"
    path.mkdir()
    config = small_config(here / "weights.safetensors")
    (path / "config.json").write_text(to_json(config))
    (path / "init_scales.safetensors").write_bytes(b"")
    return path


def test_a_run_without_final(refuse: Refuse, calibrated: Path) -> None:
    line = refuse("landscape", "run", "--landscape.origin", "final")
    assert line == (
        "run 'run' has no scales.safetensors: its search has not finished; set landscape.origin init"
    )
    assert "has no scales.safetensors" in refuse("landscape", "run", "--landscape.direction", "between")
    results = ("--landscape.direction", "principal", "--landscape.results", "run")
    assert "take it out of landscape.results" in refuse("landscape", "config.py", *results)


def test_a_run_without_qparams(refuse: Refuse, calibrated: Path) -> None:
    (calibrated / "init_scales.safetensors").unlink()
    assert refuse("landscape", "run").startswith("run 'run' has no init_scales.safetensors")


def test_a_run_keeps_its_config(refuse: Refuse, calibrated: Path) -> None:
    line = refuse("landscape", "run", "--landscape.points", "5", "--seed", "3")
    assert line == "a run keeps its config, so '--seed' cannot be set on one; --landscape fields can"


def test_a_folder_that_is_no_run(refuse: Refuse, here: Path) -> None:
    (here / "empty").mkdir()
    assert refuse("landscape", "empty") == "'empty' is no run directory: it holds no config.json"


def test_only_losses_that_need_labels(refuse: Refuse, here: Path) -> None:
    source = npz(here / "few.npz", 20)
    line = refuse("landscape", "config.py", "--data.calibration", source, "--landscape.losses", "error_rate")
    assert line.startswith("the calibration images have no labels, which error_rate need")


def test_a_label_beyond_the_classes(refuse: Refuse, here: Path) -> None:
    source = npz(here / "few.npz", 20, labels=[10] * 20)
    line = refuse("landscape", "config.py", "--data.calibration", source)
    assert line.startswith("'few.npz' has label 10, but the network has 10 classes")


def test_pictures_without_matplotlib(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refuse("landscape", "config.py")
    assert line == (
        "pictures need matplotlib: pip install 'evolq_jax[plot]', or go without: --landscape.no-plots"
    )


def test_a_directory_that_holds_something_else(refuse: Refuse, here: Path) -> None:
    (here / "full").mkdir()
    (here / "full" / "precious.txt").write_text("")
    line = refuse("landscape", "config.py", "--run-dir", "full")
    assert line == "run directory 'full' is not empty; name another with --run-dir"


def test_a_config_file_s_landscape(refuse: Refuse, here: Path) -> None:
    assert Experiment().landscape == LandscapeConfig()
    (here / "mine.py").write_text(
        "from evolq_jax.config.experiment import Experiment, LandscapeConfig\n"
        "config = Experiment(landscape=LandscapeConfig(kind='cube'))\n"
    )
    assert "landscape.kind has the unknown value 'cube' (known: line, plane, layers)" in refuse(
        "landscape", "mine.py"
    )
