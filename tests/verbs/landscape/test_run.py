import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evolq_jax.config.experiment import Experiment, LandscapeConfig
from evolq_jax.errors import UserError
from evolq_jax.pipeline.watcher import Silent
from evolq_jax.runs.results.files import read_result
from evolq_jax.verbs.landscape.plan import LandscapePlan, plan_landscape
from evolq_jax.verbs.landscape.record import POINTS, read_landscape
from evolq_jax.verbs.landscape.run import run_landscape
from evolq_jax.verbs.search.run import run_search
from tests.measured import without_timing
from tests.small_run import BATCH, BLOCKS, small_config
from tests.verbs.conftest import Finished

QKV = ("*/attn/qkv/weight",)
LINE = LandscapeConfig(
    sites=QKV, points=5, directions=2, epsilon=0.05, num_images=BATCH, batch_size=BATCH, image_chunk=BATCH,
    point_chunk=1, plots=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def config(weights: Path) -> Experiment:
    return replace(small_config(weights), landscape=LINE)


class Killed(Silent):
    """Stops the scan after so many points."""

    def __init__(self, points: int) -> None:
        self.points = points

    def stage(self, name: str) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            if name == "landscape" and done >= self.points:
                raise KeyboardInterrupt

        return progress


def test_a_line_is_an_archive_of_arrays_and_what_they_mean(config: Experiment, tmp_path: Path) -> None:
    summary = run_landscape(config, run_dir=tmp_path / "run")
    files = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert files == ["config.json", "landscape.json", "landscape.npz", "points.jsonl"]
    arrays, metadata = read_landscape(tmp_path / "run")
    assert list(metadata.columns) == list(arrays["columns"])
    assert metadata.columns[:3] == ("cross_entropy", "error_rate", "info_nce_t0.3")
    assert arrays["losses"].shape == (8, 2, 5)
    assert arrays["losses"].dtype == np.float32
    np.testing.assert_array_equal(arrays["x"], np.array([-1, -0.5, 0, 0.5, 1], np.float32))
    # every direction passes through the origin, and leaves it
    np.testing.assert_array_equal(arrays["losses"][:, 0, 2], arrays["losses"][:, 1, 2])
    assert not np.array_equal(arrays["losses"][-1, 0], arrays["losses"][-1, 1])
    assert arrays["roughness_stride1"].shape == (8, 2)
    assert metadata.left_out == ()
    assert metadata.moving_sites == ("blocks/attn/qkv/weight",)
    assert metadata.moving_scales == BLOCKS * 3 * 64
    assert metadata.axis_labels == ("random direction, units of 0.05 in log scale",)
    number = metadata.columns.index("kl")
    spread = summary.jaggedness["kl"].roughness[1]
    assert spread.mean == pytest.approx(arrays["roughness_stride1"][number].mean())
    assert spread.lines == 2
    assert read_result(tmp_path / "run") == summary
    written = json.loads((tmp_path / "run" / "landscape.json").read_text())
    assert (written["kind"], written["landscape"]["kind"]) == ("landscape", "line")
    assert written["jaggedness"]["kl"]["roughness"]["1"]["lines"] == 2
    assert vars(metadata).items() <= vars(summary).items()


def test_a_killed_scan_continues_to_the_same_bytes(config: Experiment, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_landscape(config, run_dir=whole)
    for points in (0, 3, 7):
        with pytest.raises(KeyboardInterrupt):
            run_landscape(config, run_dir=killed, watcher=Killed(points))
        assert len((killed / POINTS).read_text().splitlines()) == 1 + points
        with (killed / POINTS).open("a") as log:
            log.write("[[0.25, 0.5")  # a line cut off
    run_landscape(config, run_dir=killed)
    for name in ("landscape.npz", POINTS):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_only_the_same_scan_is_continued(config: Experiment, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_landscape(config, run_dir=run, watcher=Killed(2))
    with pytest.raises(UserError, match="holds an unfinished landscape of another config"):
        run_landscape(replace(config, seed=1), run_dir=run)
    header, *rest = (run / POINTS).read_text().splitlines(keepends=True)
    changed = json.loads(header) | {"mesh": {"candidate": 7, "data": 1}}
    (run / POINTS).write_text(json.dumps(changed) + "\n" + "".join(rest))
    with pytest.raises(UserError, match=r"cannot be continued, .* changed: mesh/candidate;"):
        run_landscape(config, run_dir=run)
    (run / POINTS).write_text(header + "".join(rest))
    run_landscape(config, run_dir=run)
    with pytest.raises(UserError, match="holds a finished landscape; name another with --run-dir"):
        run_landscape(config, run_dir=run)


def test_a_plane_through_two_kinds_of_direction(config: Experiment, tmp_path: Path) -> None:
    settings = replace(LINE, kind="plane", second="ratio", points=3, losses=("kl",), plots=True)
    summary = run_landscape(config, settings, tmp_path / "run")
    arrays, metadata = read_landscape(tmp_path / "run")
    assert arrays["losses"].shape == (1, 3, 3)
    assert metadata.axes == ("gaussian", "ratio")
    assert metadata.axis_labels[1] == "log ratio of all scales, units of 0.05"
    assert metadata.cosine_of_axes is not None
    assert abs(metadata.cosine_of_axes) < 0.2
    assert metadata.direction_norms[1] == pytest.approx(0.05 * np.sqrt(BLOCKS * 192), rel=1e-4)
    assert summary.jaggedness["kl"].range[1].lines == 6
    drawn = {file.name for file in (tmp_path / "run" / "pictures").iterdir()}
    assert drawn == {f"{view}_kl.{kind}" for view in ("contour", "surface") for kind in ("png", "svg", "pdf")}
    shown = (tmp_path / "run" / "index.html").read_text()
    links = set(re.findall(r'(?:href|src)="([^"]+)"', shown))
    assert {"landscape.json", "pictures/contour_kl.svg", "pictures/surface_kl.pdf"} <= links
    assert all((tmp_path / "run" / link).is_file() for link in links)
    assert "3 points an axis, from -1 to 1" in shown
    # x runs along the last axis: the row through the origin is the line of the first direction
    line = run_landscape(config, replace(LINE, points=3, directions=1, losses=("kl",)), tmp_path / "line")
    assert line.direction_norms[0] == pytest.approx(metadata.direction_norms[0])
    row = read_landscape(tmp_path / "line")[0]["losses"][0, 0]
    np.testing.assert_allclose(arrays["losses"][0, 1], row, rtol=1e-3)


def test_layers_name_their_lines(config: Experiment, tmp_path: Path) -> None:
    settings = replace(LINE, kind="layers", points=3, directions=1, blocks=(1, 3), losses=("kl",))
    run_landscape(config, settings, tmp_path / "run")
    arrays, _ = read_landscape(tmp_path / "run")
    assert arrays["losses"].shape == (1, 2, 1, 3)
    assert arrays["sites"].tolist() == ["blocks/attn/qkv/weight"] * 2
    assert arrays["blocks"].tolist() == [1, 3]
    origin = arrays["losses"][0, :, 0, 1]
    assert origin[0] == pytest.approx(origin[1], rel=1e-3)  # both go through the init


def test_from_a_run_s_init_to_its_final_and_back(finished: Finished, tmp_path: Path) -> None:
    settings = replace(LINE, direction="between", low=0.0, high=1.0, points=3, losses=("kl",))
    settings = replace(settings, num_images=None)
    run_landscape(finished.path, settings, tmp_path / "there")
    run_landscape(finished.path, replace(settings, origin="final"), tmp_path / "back")
    there, back = (read_landscape(tmp_path / name)[0]["losses"][0, 0] for name in ("there", "back"))
    np.testing.assert_allclose(there, back[::-1], rtol=1e-3)
    fitness = finished.result.calibration_fitness
    np.testing.assert_allclose(there[[0, 2]], [fitness.init, fitness.final], rtol=1e-3)
    assert fitness.init != fitness.final


def test_principal_directions_of_several_runs(finished: Finished, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run_search(replace(finished.config, search=replace(finished.config.search, epsilon=5e-3)), other)
    settings = replace(LINE, kind="plane", direction="principal", points=3, losses=("kl",))
    settings = replace(settings, results=(str(finished.path), str(other)))
    run_landscape(finished.path, settings, tmp_path / "run")
    arrays, metadata = read_landscape(tmp_path / "run")
    assert arrays["losses"].shape == (1, 3, 3)
    assert sum(metadata.principal_shares) == pytest.approx(1.0)
    assert metadata.principal_shares[0] > metadata.principal_shares[1] > 0
    assert metadata.cosine_of_axes is not None
    assert abs(metadata.cosine_of_axes) < 1e-4


def test_two_results_give_a_direction(finished: Finished, config: Experiment) -> None:
    """As the message says that asks for them."""
    between = replace(LINE, direction="between")
    with pytest.raises(
        UserError, match=r"give a finished run's directory, or name one in landscape\.towards"
    ):
        plan_landscape(config, between)
    assert plan_landscape(config, replace(between, towards=str(finished.path))).axes
    assert plan_landscape(finished.path, between).axes
    two = replace(LINE, direction="principal", results=(str(finished.path), str(finished.path.parent)))
    with pytest.raises(UserError, match=r"no run directory"):
        plan_landscape(config, two)
    assert plan_landscape(config, replace(two, results=(str(finished.path),))).axes  # taken out


def test_without_labels_some_losses_are_left_out(config: Experiment, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", image=np.random.default_rng(0).integers(0, 255, (20, 8, 8, 1), np.uint8))
    data = replace(config.data, calibration=str(tmp_path / "few.npz"))
    config = replace(config, data=data, landscape=replace(LINE, points=3, directions=1))
    assert plan_landscape(config).left_out == ("cross_entropy", "error_rate")
    summary = run_landscape(config, run_dir=tmp_path / "run")
    assert summary.left_out == ("cross_entropy", "error_rate")
    assert summary.columns == ("info_nce_t0.3", "info_nce_t1", "info_nce_t3", "mse", "cosine", "kl")
    with pytest.raises(UserError, match="have no labels, which cross_entropy need"):
        run_landscape(config, replace(LINE, losses=("cross_entropy",)))


def test_scales_that_would_be_negative_are_counted(config: Experiment, tmp_path: Path) -> None:
    settings = replace(LINE, direction="uniform", epsilon=10.0, points=3, directions=1, losses=("kl",))
    summary = run_landscape(config, settings, tmp_path / "run")
    assert summary.reflected_share == pytest.approx(0.5, abs=0.1)  # about every second scale
    assert np.isfinite(read_landscape(tmp_path / "run")[0]["losses"]).all()


def test_a_plan_counts_and_writes_nothing(
    config: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    without_timing(monkeypatch, "landscape")
    monkeypatch.setattr("evolq_jax.verbs.landscape.plan.process_bytes", lambda: 0)

    def plan(**changes: Any) -> LandscapePlan:
        return plan_landscape(config, replace(LINE, **changes))

    line, layers = plan(), plan(kind="layers", point_chunk=8)
    assert (line.points, line.grid) == (10, (2, 5))
    assert line.estimated_seconds == pytest.approx(10 * (10 / 80 + 2 / 100) + 3 * 0.5, abs=0.06)
    assert (layers.points, layers.network_share_per_point) == (BLOCKS * 10, 0.625)
    assert layers.estimated_memory_mib > line.estimated_memory_mib
    assert plan(kind="plane", points=51).points == 51**2
    assert list(tmp_path.iterdir()) == []
