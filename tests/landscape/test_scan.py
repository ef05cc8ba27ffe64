import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.timing import count_compilations
from evolq_jax.devices.mesh import make_mesh
from evolq_jax.landscape.config import LandscapeConfig
from evolq_jax.landscape.directions import Points, keep_blocks, random_directions, scales_at
from evolq_jax.landscape.grid import Grid, make_grid
from evolq_jax.landscape.losses import all_losses, make_losses
from evolq_jax.landscape.scan import Ground, Program, scan
from evolq_jax.network.point import at_qparams
from evolq_jax.network.reading import float_reading, quantized_reading
from evolq_jax.network.run import forward
from evolq_jax.objective.logits import kl
from evolq_jax.objective.objective import Outputs, Teacher
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.spec import QuantSpec
from tests.compiling import QUICKLY
from tests.numbers import numbers
from tests.search.setting import BATCH, Setting
from tests.search.test_features import error_of, teacher_features
from tests.tiny import PREPROCESSING
from tests.two_segments import WITH_DOWN, make_inputs, params_with_down

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ("blocks/attn/qkv/weight", "blocks/mlp/fc2/weight")
CONFIG = LandscapeConfig(points=3, directions=2)
LOSSES = make_losses(("cross_entropy", "info_nce", "kl"), batch_size=BATCH, with_labels=True)
TEMPERATURES = jnp.array([1.0, 3.0])


def program_of(setting: Setting, **changes: Any) -> Program:
    specs, parts = setting.specs, setting.tiny.parts
    return replace(Program(parts, specs, PREPROCESSING, LOSSES, (True,), image_chunk=6), **changes)


def ground_of(setting: Setting, moving: Sequence[str], count: int = 2) -> Ground:
    origin = {site: setting.qparams[site] for site in moving}
    directions = random_directions(
        setting.tiny.parts, origin, jax.random.key(0), name="gaussian", count=count, epsilon=0.2
    )
    labels = jnp.asarray(np.random.default_rng(0).integers(0, 10, 12), jnp.int32)
    teacher = Teacher(setting.teacher)
    return Ground(setting.tiny.params, setting.qparams, directions, teacher, labels, TEMPERATURES)


def grid_of(setting: Setting, moving: Sequence[str], **changes: Any) -> Grid:
    return make_grid(replace(CONFIG, **changes), setting.tiny.parts, moving, 2)


def run(program: Program, ground: Ground, grid: Grid, setting: Setting, first: int = 0) -> np.ndarray:
    found = scan(program, ground, grid, setting.tiny.pixels, mesh=make_mesh(), first=first)
    return np.concatenate([losses for _, losses in found])


def by_whole_passes(setting: Setting, program: Program, ground: Ground, points: Points) -> np.ndarray:
    """Point by point, from the images."""
    rows: list[np.ndarray] = []
    for number in range(len(points.coordinates)):
        point = jax.tree.map(lambda leaf, n=number: jnp.asarray(leaf[n]), points)
        qparams = scales_at(program.parts, ground.origin, ground.directions, point, log=program.log)
        outputs, labels, temperatures = Outputs(setting.logits(qparams)), ground.labels, ground.temperatures
        found = all_losses(program.losses, outputs, ground.teacher, labels=labels, temperatures=temperatures)
        rows.append(np.asarray(found))
    return np.stack(rows)


@pytest.mark.parametrize(
    ("moving", "changes", "settings"),
    [
        ((*WEIGHTS, "head/weight"), {}, {}),  # from the images
        (WEIGHTS, {"kind": "plane", "blocks": (1, 2)}, {"log": (True, True)}),
        ((*WEIGHTS, "blocks/norm1"), {"kind": "layers"}, {"point_chunk": 4, "image_chunk": 12}),
    ],
    ids=["line", "plane", "layers"],
)
def test_points_score_as_whole_forward_passes_do(
    setting: Setting, moving: tuple[str, ...], changes: dict[str, Any], settings: dict[str, Any]
) -> None:
    program, ground = program_of(setting, **settings), ground_of(setting, moving)
    if "blocks" in changes:
        kept = keep_blocks(program.parts, ground.directions, changes["blocks"])
        ground = ground._replace(directions=kept)
    grid = grid_of(setting, moving, **changes)
    got, want = run(program, ground, grid, setting), by_whole_passes(setting, program, ground, grid.points)
    assert got.shape == (np.prod(grid.shape), 4)
    # Rounding flips: a few of the points, by a few thousandths.
    np.testing.assert_allclose(got, want, rtol=2e-2, atol=2e-3)
    assert np.median(np.abs(got / want - 1)) < 1e-4
    assert np.ptp(want[:, -1]) > 0.05 * want[:, -1].max()  # the points do differ


def test_features_are_a_loss_beside_the_others(setting: Setting) -> None:
    ground = ground_of(setting, WEIGHTS)
    ground = ground._replace(teacher=Teacher(setting.teacher, teacher_features()))
    losses = make_losses(("kl", "features"), batch_size=BATCH, with_labels=True)
    program = program_of(setting, losses=losses)
    grid = grid_of(setting, WEIGHTS)
    found = run(program, ground, grid, setting)
    middle = np.flatnonzero(grid.points.coordinates[:, 0] == 0)[0]
    assert found[middle, 1] == pytest.approx(error_of(setting, setting.qparams), rel=1e-3)
    assert found[middle, 0] == pytest.approx(
        float(kl(setting.logits(setting.qparams), setting.teacher)), rel=1e-3
    )
    assert np.ptp(found[:, 1]) > 0.01 * found[middle, 1]


def test_a_scan_compiles_one_program_for_all_blocks(setting: Setting) -> None:
    """Other origins, directions, coordinates, temperatures and blocks are arguments."""
    program, ground = program_of(setting), ground_of(setting, WEIGHTS)
    run(program, ground, grid_of(setting, WEIGHTS, kind="layers"), setting)
    other = jax.tree.map(lambda leaf: 1.01 * leaf if leaf.dtype == jnp.float32 else leaf, ground)
    grid = grid_of(setting, WEIGHTS, kind="layers", points=4, blocks=(1, 2), low=-2.0)
    with count_compilations() as compilations:
        run(program, other, grid, setting)
    assert compilations.seconds == []


def test_a_continued_scan_gives_the_same_bits(setting: Setting) -> None:
    program, ground = program_of(setting, point_chunk=2), ground_of(setting, WEIGHTS)
    grid = grid_of(setting, WEIGHTS, kind="layers")
    whole = run(program, ground, grid, setting)
    for first in (2, 24, 34):
        np.testing.assert_array_equal(run(program, ground, grid, setting, first), whole[first:])


def test_labels_are_not_needed_where_no_loss_has_them(setting: Setting) -> None:
    program = program_of(setting, losses=make_losses(("kl",), batch_size=BATCH, with_labels=False))
    ground = ground_of(setting, WEIGHTS)._replace(labels=None)
    assert run(program, ground, grid_of(setting, WEIGHTS), setting).shape == (6, 1)


def test_segments_before_the_moved_one_are_run_once() -> None:
    """Of three segments: the prefix runs through the first, and the second's only block, to the third's."""
    parts, params, x = WITH_DOWN, params_with_down(), make_inputs(12)

    def site_qparams(step: float, *shape: int) -> SiteQParams:
        return numbers(jnp.full(shape, step), 8, 4, stacked=True)

    qparams: QParams = {
        "a/weight": site_qparams(0.1, 2, 1, 1), "b/weight": site_qparams(0.15, 3, 1, 1),
        "a/h": site_qparams(0.15, 2, 1, 1), "b/h": site_qparams(0.13, 3, 1, 1),
        "down/weight": site_qparams(0.2, 1, 1, 1), "down/out": site_qparams(0.4, 1, 1, 1),
    }  # fmt: skip
    specs = tuple((name, QuantSpec()) for name in qparams)
    moving = ("a/weight", "b/weight", "down/weight")
    grid = make_grid(LandscapeConfig(kind="layers", points=3, directions=1), parts, moving, 1)
    assert [line.block for line in grid.lines] == [0, 1, 0, 0, 1, 2]
    origin = {site: qparams[site] for site in moving}
    key = jax.random.key(0)
    directions = random_directions(parts, origin, key, name="gaussian", count=1, epsilon=0.3)
    preprocessing = replace(PREPROCESSING, mean=(0.0,), std=(1 / 255,))  # leaves the inputs as they are
    teacher = forward(parts, float_reading(params), x)
    ground = Ground(params, qparams, directions, Teacher(teacher), None, TEMPERATURES)
    losses = make_losses(("mse",), batch_size=BATCH, with_labels=False)
    program = Program(parts, specs, preprocessing, losses, (True,), image_chunk=6)
    found = scan(program, ground, grid, x)
    got = np.concatenate([losses for _, losses in found])[:, 0]

    @jax.jit
    def mse_at(point: Points) -> jax.Array:
        network = at_qparams(specs, params, scales_at(parts, qparams, directions, point, log=(True,)))
        logits = forward(parts, quantized_reading(specs, network.quantized, network.qparams), x)
        return jnp.mean((logits - teacher) ** 2)

    points = [jax.tree.map(lambda leaf, n=n: leaf[n], grid.points) for n in range(len(got))]
    want = [float(mse_at(point)) for point in points]
    np.testing.assert_allclose(got, want, rtol=1e-3)
    assert len(set(np.round(want, 6))) > 5


FIVE_DEVICES = """
import numpy as np
from tests.landscape.test_scan import WEIGHTS, grid_of, ground_of, program_of, run
from tests.search.setting import make_setting
setting = make_setting()
grid = grid_of(setting, WEIGHTS, kind="layers")
found = run(program_of(setting), ground_of(setting, WEIGHTS), grid, setting)
np.save("found.npy", found)
"""


@pytest.mark.slow
def test_points_over_five_devices_score_as_on_one(setting: Setting, tmp_path: Path) -> None:
    """Twelve points a block on five devices: the last call of each block is padded."""
    environment = {
        "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": "",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as here: tests/conftest.py
        "XLA_FLAGS": f"{QUICKLY} --xla_force_host_platform_device_count=5",
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", FIVE_DEVICES], cwd=tmp_path, env=environment, check=True)
    grid = grid_of(setting, WEIGHTS, kind="layers")
    want = run(program_of(setting), ground_of(setting, WEIGHTS), grid, setting)
    got = np.load(tmp_path / "found.npy", allow_pickle=False)
    np.testing.assert_allclose(got, want, rtol=1e-3)
