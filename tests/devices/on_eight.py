"""Several devices give what one gives: run by `test_eight_devices.py` in a process of eight.

Tolerance: devices run other numbers of images at once than one device does, so products differ in their last
bits, and now and then a value next to a rounding edge falls on its other side: some 1e-4 of a fitness.
"""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.compiled import work
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.devices.mesh import DATA, gather, image_mesh, make_mesh, put_rows, replicate
from evolq_jax.devices.placement import Placement
from evolq_jax.network.network import Network
from evolq_jax.network.point import at_qparams
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import at, forward
from evolq_jax.objective.objective import Teacher, make_objective
from evolq_jax.quant.qparams import QParams, SiteQParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.spec import QuantSpec, scope
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.search import programs
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.population import Context
from evolq_jax.search.runner import Runner
from evolq_jax.search.state import SearchEnd
from evolq_jax.typing import Array, Params
from tests.numbers import numbers
from tests.search.setting import Subject, searched
from tests.tiny import PREPROCESSING, make_tiny
from tests.two_segments import PARTS, make_inputs, make_params

RTOL = 2e-4
MESHES = ("candidate=8", "candidate=4,data=2", "data=8", "candidate=2,data=3")
BATCH, SEARCHED, HELD_OUT = 2, 22, 8  # images; nothing divides by eight
SITES = ("a/weight", "b/weight", "a/h", "b/h")


class Setting(NamedTuple):
    params: Params
    qparams: QParams
    x: Array
    teacher: Array


SPECS = tuple((name, QuantSpec()) for name in SITES)
OBJECTIVE = make_objective("info_nce + 0.5*local + 0.5*features", batch_size=BATCH)
IMAGE_CHUNK, POPULATION_CHUNK = 4, 2


@cache
def make_setting() -> Setting:
    params, x = make_params(), make_inputs(SEARCHED + HELD_OUT)
    depths = {"a": 2, "b": 3}
    steps = {"a/weight": 0.05, "b/weight": 0.08, "a/h": 0.08, "b/h": 0.07}  # too small: there is much to gain
    qparams = {
        name: numbers(jnp.full((depths[name[0]], 1, 1), step), 8, 4, stacked=True)
        for name, step in steps.items()
    }
    return Setting(params, qparams, x, forward(PARTS, float_reading(params), x))


def placement(text: str) -> Placement:
    mesh = make_mesh(text)
    assert mesh is not None
    return Placement(mesh, (SEARCHED, HELD_OUT), IMAGE_CHUNK)


def scored(where: Placement | None, candidates: QParams, part: int, num_images: int) -> tuple[Array, str]:
    """Fitness of candidates for block 1 of the first segment, and the compiled text of what scores them."""
    setting, block = make_setting(), jnp.int32(1)
    runner = Runner(PARTS, SPECS, IMAGE_CHUNK, POPULATION_CHUNK, where)
    put = (lambda tree: tree) if where is None else (lambda tree: replicate(where.mesh, tree))
    network = at_qparams(SPECS, *put((setting.params, setting.qparams)))
    tokens = setting.x if where is None else where.put(np.asarray(setting.x))
    inputs = programs.cache_inputs(runner, network, tokens)["a"]
    inputs = programs.split(runner, inputs, num_searched=SEARCHED)[part]
    own_output = programs.float_blocks(runner, network.params, inputs, block, number=0, size=1)
    logits = put(jnp.split(setting.teacher, [SEARCHED])[part])
    features = logits  # this network's logits are what its head reads
    teacher = Teacher(logits, features, own_output)
    arguments = Context(network, block, inputs, teacher, jnp.float32(0.5)), put(candidates)
    lowered = programs.score.lower(runner, OBJECTIVE, *arguments, number=0, num_images=num_images)
    compiled = lowered.compile()
    return compiled(*arguments), compiled.as_text() or ""


def population(size: int) -> QParams:
    rng = np.random.default_rng(size)

    def changed(site_qparams: SiteQParams) -> SiteQParams:
        factors = jnp.asarray(rng.uniform(0.4, 2.5, (size, 1, *site_qparams.scale.shape)), jnp.float32)
        repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf[None, None], size, 0), site_qparams)
        return repeated._replace(scale=site_qparams.scale * factors)

    return {name: changed(q) for name, q in at(scope(make_setting().qparams, "a"), 1).items()}


@pytest.mark.parametrize(("size", "part", "num_images"), [(5, 0, SEARCHED), (5, 0, 6), (1, 1, HELD_OUT)])
@pytest.mark.parametrize("mesh", MESHES)
def test_candidates_score_as_on_one_device(mesh: str, size: int, part: int, num_images: int) -> None:
    candidates = population(size)
    want, _ = scored(None, candidates, part, num_images)
    got, text = scored(placement(mesh), candidates, part, num_images)
    assert got.sharding.is_fully_replicated
    np.testing.assert_allclose(got, want, rtol=RTOL)
    if size > 1:
        assert np.ptp(want) > 20 * RTOL * np.max(want)  # the candidates do differ
    _check_collectives(text, placement(mesh), size, num_images)


def _check_collectives(text: str, where: Placement, size: int, num_images: int) -> None:
    """All that devices exchange are logits, features and errors of images, and the fitness of candidates."""
    done, classes, rows = work(text), 4, where.mesh.shape["candidate"]
    assert set(done.counts) == {"all-gather"}
    images = where.share(num_images) * where.devices
    if size == 1:
        images += rows * IMAGE_CHUNK * where.devices  # shares of shares are filled up as well
    assert done.largest <= 4 * classes * images * (1 if size == 1 else POPULATION_CHUNK)
    if size > 1:  # of logits and of errors; of the fitness
        assert done.counts["all-gather"] >= 2 * (where.devices > 1) + (rows > 1)


POPULATION = SearchConfig(
    algorithm="SNES",
    parametrization="log_per_tensor",
    generations=2,
    population_size=5,
    epsilon=0.3,
    fitness="info_nce + 0.5*local",
    batch_size=BATCH,
    holdout=0.3,
    min_gain=0.5,
    image_chunk=4,
    population_chunk=2,
)

ONE_CHILD = SearchConfig(
    algorithm="EvolQ",
    parametrization="raw",
    population_size=1,
    epsilon=0.05,
    fitness="info_nce",
    batch_size=BATCH,
    holdout=0.0,
    rescore_start=True,
    image_chunk=4,
)


def searched_on(config: SearchConfig, text: str | None) -> SearchEnd:
    setting, mesh = make_setting(), None if text is None else make_mesh(text)
    arrays = setting.params, setting.qparams, setting.x, Teacher(setting.teacher)
    return searched(Subject(PARTS, SPECS, *arrays), config, mesh=mesh).result


@pytest.mark.parametrize(
    ("config", "mesh"),
    [(POPULATION, "candidate=4,data=2"), (ONE_CHILD, "data=8")],
    ids=["population", "child"],
)
def test_searches_find_what_they_find_on_one_device(config: SearchConfig, mesh: str) -> None:
    want, got = searched_on(config, None), searched_on(config, mesh)
    assert want.kept
    assert (got.evaluations, got.kept, got.visits) == (want.evaluations, want.kept, want.visits)
    assert got.candidate_images == want.candidate_images
    np.testing.assert_allclose([got.start_fitness, got.fitness], [want.start_fitness, want.fitness], RTOL)
    for name, site_qparams in want.qparams.items():
        np.testing.assert_allclose(got.qparams[name].scale, site_qparams.scale, rtol=1e-2, err_msg=name)
        assert len(got.qparams[name].scale.devices()) == 1  # as checkpoints and files want them


def test_calibration_gives_what_it_gives_on_one_device() -> None:
    """Twelve images are four devices' of two copies each; every link runs them in its own order."""
    tiny = make_tiny(depth=1)
    config = QuantConfig(
        "matmul",
        weight_bits=3,
        quantize_image=False,
        weight_observer="minmax",
    )
    (specs, bits), chain = resolve(config, tiny.sites), ("ranges", "ridge", "bias")
    run = partial(calibrate, tiny.parts, specs, sites=tiny.sites, chain=chain, chunk=3)
    start = blank_qparams(specs, bits, tiny.sites)
    want = run(tiny.params, [tiny.images], qparams=start)
    mesh = make_mesh("data=8")
    assert mesh is not None
    mesh = image_mesh(mesh, len(tiny.images))
    assert dict(mesh.shape) == {"candidate": 2, "data": 4}
    batches = [put_rows(mesh, DATA, np.asarray(tiny.images))]
    params, start = replicate(mesh, (tiny.params, start))
    got = gather(mesh, run(params, batches, mesh=mesh, qparams=start))
    for one, several in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(several, one, rtol=2e-3, atol=2e-3 * np.abs(one).max())


def test_logits_of_images_on_all_devices() -> None:
    """Sixteen at once, of twelve: the rest is filled up and dropped."""
    tiny = make_tiny(depth=1)
    network, pixels = Network(tiny.parts, tiny.params, PREPROCESSING), np.asarray(tiny.pixels)
    want = compute_logits(network, pixels, 12)
    for text in ("data=8", "candidate=4,data=2"):
        got = compute_logits(network, pixels, 2, mesh=make_mesh(text))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
