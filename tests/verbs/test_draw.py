from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from evolq_jax.cli.main import run as evolq
from evolq_jax.errors import UserError
from evolq_jax.runs.directory import INDEX, LANDSCAPE, RunDirectory, hold_directory, open_run
from evolq_jax.runs.results.files import write_result
from evolq_jax.runs.results.landscape import LandscapeMetadata
from evolq_jax.verbs import draw
from evolq_jax.verbs.landscape.record import write_arrays
from tests.sample_results import LANDSCAPE as RESULT

X = np.linspace(-1, 1, 5, dtype=np.float32)


def scan(path: Path, factor: float) -> Path:
    """A finished scan of a line, as its verb writes it."""
    columns = {"columns": ("kl",), "units": ("nats",), "axes": ("gaussian",), "axis_labels": ("x",)}
    with hold_directory(path, "") as run:
        result = replace(RESULT, **columns, run_dir=path)
        names = {field.name for field in fields(LandscapeMetadata)}
        metadata = LandscapeMetadata(**{name: value for name, value in vars(result).items() if name in names})
        write_arrays(run, {"x": X, "losses": factor * X[None, None] ** 2}, metadata)
        write_result(run, result)
        run.write("config.json", b"{}")
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return scan(tmp_path / "small", 1.0), scan(tmp_path / "large", 4.0)


def test_scans_are_drawn_on_the_same_scales(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = list[dict[str, tuple[float, float]]]()
    monkeypatch.setattr(draw, "write_pictures", lambda *args: given.append(args[-1]))
    evolq(["draw", *map(str, two)])
    assert given == [{"kl": (0.0, 4.0)}] * 2
    evolq(["draw", str(two[0]), "--limits", "kl", "-1", "0.5"])
    assert given[2] == {"kl": (-1.0, 0.5)}
    assert f"{two[0]}/{INDEX} shows the pictures" in capsys.readouterr().out


def test_pictures_are_replaced_and_nothing_else(two: tuple[Path, Path]) -> None:
    before = {file.name: file.read_bytes() for file in two[0].iterdir()}
    draw.draw_landscapes(two[:1])
    alone = (two[0] / "pictures" / "lines_kl.svg").read_bytes()
    draw.draw_landscapes(two)
    assert (two[0] / "pictures" / "lines_kl.svg").read_bytes() != alone
    assert {"index.html", "pictures"} == {file.name for file in two[0].iterdir()} - {*before, ".lock"}
    assert all((two[0] / name).read_bytes() == content for name, content in before.items())


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (("lk", "0", "1"), "no scan has the loss 'lk'; did you mean 'kl'"),
        (("kl", "1", "0"), "the limits of 'kl' are 1 and 0: give the lower one first"),
        (("kl", "a", "1"), "--limits takes a loss and two numbers, not 'a' and '1'"),
        (("kl", "nan", "1"), "--limits takes a loss and two numbers, not 'nan' and '1'"),
    ],
)
def test_wrong_limits(two: tuple[Path, Path], limits: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as refused:
        evolq(["draw", str(two[0]), "--limits", *limits])
    assert message in str(refused.value)
    assert not (two[0] / "pictures").exists()
    evolq(["draw", str(two[0]), "--limits", "kl", "0", "1"])  # as the messages say
    assert (two[0] / "pictures").exists()


def test_only_finished_scans_are_drawn(two: tuple[Path, Path], tmp_path: Path) -> None:
    (two[1] / LANDSCAPE).unlink()
    with pytest.raises(UserError, match=r"has no landscape\.json: it has not finished"):
        draw.draw_landscapes(two)
    with pytest.raises(UserError, match="is no run directory"):
        draw.draw_landscapes([tmp_path])


def test_a_scan_is_no_network(two: tuple[Path, Path]) -> None:
    with pytest.raises(
        UserError, match="holds a landscape, which has no network: give the run or the config"
    ):
        open_run(two[0])


def test_pictures_stay_in_their_directory(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (two[0] / "pictures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="pictures' is a link: take it away"):
        draw.draw_landscapes(two[:1])
    (two[1] / "pictures").write_text("")
    with pytest.raises(UserError, match=r"cannot write '.*pictures': File exists"):
        draw.draw_landscapes(two[1:])
    assert [*(tmp_path / "elsewhere").iterdir()] == []


def test_what_a_kill_left_of_a_picture_is_taken_away(tmp_path: Path) -> None:
    left = tmp_path / "pictures" / ".lines_kl.png.partial"
    left.parent.mkdir()
    left.write_text("")
    assert RunDirectory(tmp_path).folder("pictures").path == left.parent
    assert not left.exists()
