import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import jax
import pytest

from benchmarks.ahead import abstract_setup
from evolq_jax.config.experiment import CalibrationConfig, Experiment, ModelConfig, QuantConfig
from evolq_jax.devices.memory import limit_bytes, parse_bytes
from evolq_jax.devices.work import Work
from evolq_jax.errors import UserError
from evolq_jax.pipeline import cost
from evolq_jax.pipeline import held as held_module
from evolq_jax.pipeline.cost import fit_memory, needed_bytes, out_of_memory
from evolq_jax.pipeline.held import INTERPRETER, MIB, held
from evolq_jax.pipeline.load import Setup, load_model
from evolq_jax.pipeline.work import InputBytes, Traced
from evolq_jax.search import driver
from evolq_jax.search.config import PREFIX_KINDS, PrefixKind
from evolq_jax.verbs import init_network as init_module
from evolq_jax.verbs.search import run as run_module
from evolq_jax.verbs.search.run import run_search
from tests.small_run import small_config

NUM_IMAGES = 120


@pytest.fixture
def quick_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is traced: each image that runs at once takes so much."""

    def calibration_work(setup: Setup, num_images: int) -> Work:
        return Work(held=1000 * setup.config.calibration.image_chunk, programs=(100,))

    def trace(setup: Setup, num_images: int) -> Traced:
        quantized = Work(held=20_000, programs=(25,))
        return Traced(calibration_work(setup, num_images), quantized, inputs)

    one = 4 * 17 * 64  # a float32 input of each block: 17 tokens of width 64
    inputs = InputBytes(4 * one, one)
    for module in (cost, held_module):
        monkeypatch.setattr(module, "trace", trace)
    monkeypatch.setattr(cost, "calibration_work", calibration_work)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("12GiB", 12 * 2**30), ("800 MB", 800 * 10**6), ("1.5gib", 3 * 2**29), ("7kib", 7168)],
)
def test_amounts(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "12", "GiB", "12 giraffes", "-1GiB", "0MB", "0.0001KB"])
def test_no_amounts(text: str) -> None:
    with pytest.raises(UserError, match=f"memory '{text}' is no amount: write it like 12GiB"):
        Experiment(memory=text)


# From the settings down: fewer candidates, then fewer bytes for the blocks' inputs, then fewer images. 60
# images are searched on, so 30, 20, 15, ... divide them.
ORDER: list[tuple[int, int, PrefixKind]] = [
    *((30, population, kind) for kind in PREFIX_KINDS for population in (8, 4, 2, 1)),
    *((images, 1, "recompute") for images in (20, 15, 12, 10, 6, 5, 4, 3, 2, 1)),
]


def setup_with(
    weights: Path,
    limit: int | None,
    image_chunk: int = 30,
    population_chunk: int = 8,
    prefixes: PrefixKind = "float32",
) -> Setup:
    config = small_config(weights, memory=f"{limit / 1000}KB" if limit else None)
    search = replace(
        config.search,
        population_size=8,
        image_chunk=image_chunk,
        population_chunk=population_chunk,
        prefixes=prefixes,
        holdout=0.5,
    )
    return load_model(replace(config, search=search))


def needs(weights: Path, image_chunk: int, population_chunk: int, prefixes: PrefixKind = "float32") -> int:
    return needed_bytes(setup_with(weights, None, image_chunk, population_chunk, prefixes), NUM_IMAGES)


@pytest.mark.usefixtures("quick_trace")
def test_the_largest_sizes_that_fit_are_taken(weights: Path) -> None:
    needed = {sizes: needs(weights, *sizes) for sizes in ORDER}
    chosen: set[tuple[int, int, PrefixKind]] = set()
    for limit in needed.values():
        fitted = fit_memory(setup_with(weights, limit + 1), NUM_IMAGES).config
        found = *fitted.search.chunks(), fitted.search.prefixes
        assert found == next(sizes for sizes in ORDER if needed[sizes] <= limit + 1)
        at_once = found[0] * found[1]
        assert fitted.evaluation_batch == min(10, at_once)
        assert fitted.calibration.image_chunk == min(10, at_once)
        chosen.add(found)
    assert {kind for _, _, kind in chosen} == {*PREFIX_KINDS}
    assert {images for images, _, _ in chosen} >= {30, 20, 1}


def test_what_is_set_is_not_kept_in_more(weights: Path) -> None:
    fitted = fit_memory(setup_with(weights, 10**12, prefixes="recompute"), NUM_IMAGES)
    assert fitted.config.search.prefixes == "recompute"
    kept = [
        held(setup_with(weights, None, prefixes=kind), NUM_IMAGES)["candidates"]["inputs of every block"]
        for kind in PREFIX_KINDS
    ]
    one = NUM_IMAGES * 4 * 17 * 64  # a float32 input of each image: 17 tokens of width 64
    assert kept == [4 * one, 2 * one + one, 2 * one]


@pytest.mark.usefixtures("quick_trace")
@pytest.mark.cpu(reason="the process itself counts, which lies in no GPU")
def test_activations_decide(weights: Path) -> None:
    phases = [held(setup_with(weights, None, 30, chunk), NUM_IMAGES)["candidates"] for chunk in (4, 8)]
    one = held(setup_with(weights, None, 1, 1), NUM_IMAGES)["candidates"]["activations"]
    assert phases[1]["activations"] - phases[0]["activations"] == 120 * one
    assert needs(weights, 1, 1) > INTERPRETER


@pytest.mark.usefixtures("quick_trace")
def test_without_a_limit_nothing_changes(weights: Path) -> None:
    setup = setup_with(weights, None, 37, 5)
    assert fit_memory(setup, NUM_IMAGES) is setup
    roomy = setup_with(weights, 10**12, 37, 5)
    assert fit_memory(roomy, NUM_IMAGES) is roomy


@pytest.mark.usefixtures("quick_trace")
@pytest.mark.cpu(reason="GPUs have a memory of their own, not the machine's")
def test_the_devices_own_limit(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed, pages = needs(weights, 1, 1, "recompute"), {"SC_PAGE_SIZE": 1000}
    monkeypatch.setattr("os.sysconf", lambda name: pages[name])
    pages["SC_PHYS_PAGES"] = needed // 1000 + 1
    setup = setup_with(weights, None)
    setup = replace(setup, config=replace(setup.config, memory="device"))
    assert limit_bytes("device") == 1000 * pages["SC_PHYS_PAGES"]
    assert fit_memory(setup, NUM_IMAGES).config.search.chunks() == (1, 1)
    pages["SC_PHYS_PAGES"] = 0
    with pytest.raises(UserError, match="does not tell its memory; write an amount, like 12GiB"):
        fit_memory(setup, NUM_IMAGES)


@pytest.mark.usefixtures("quick_trace")
def test_what_cannot_fit_is_refused(weights: Path) -> None:
    least = needs(weights, 1, 1, "recompute")
    with pytest.raises(UserError) as raised:
        fit_memory(setup_with(weights, least - 1000), NUM_IMAGES)
    assert f"need about {-(-least // MIB)} MiB; give more, or lower data.num_calibration (now 120)" in str(
        raised.value
    )


def test_a_large_vit_is_planned_from_shapes() -> None:
    """The inputs of 24 blocks of ViT-L for 1,000 images are 18 GiB in float32."""
    quant = QuantConfig("fully_quantized", weight_bits=4, activation_bits=8)
    calibration = CalibrationConfig(chain=("ranges",))
    model = ModelConfig("vit_large_patch16_224")
    setup = abstract_setup(Experiment(model=model, quant=quant, calibration=calibration))
    kept = held(setup, 1000)["candidates"]["inputs of every block"]
    assert kept == 24 * 1000 * 197 * 1024 * 4
    kinds = {limit: _prefixes(setup, limit) for limit in ("44GiB", "25GiB", "8GiB")}
    assert kinds == {"44GiB": "float32", "25GiB": "bfloat16", "8GiB": "recompute"}


def _prefixes(setup: Setup, limit: str) -> str:
    fitted = fit_memory(replace(setup, config=replace(setup.config, memory=limit)), 1000)
    assert needed_bytes(fitted, 1000) <= parse_bytes(limit)
    return fitted.config.search.prefixes


EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12345678 bytes.\nPeak buffers: 1"


def test_out_of_memory_is_one_line() -> None:
    with (
        pytest.raises(UserError) as raised,
        out_of_memory("--search.population-chunk", "--search.image-chunk"),
    ):
        raise jax.errors.JaxRuntimeError(EXHAUSTED)
    assert str(raised.value) == (
        f"out of memory on {jax.devices()[0].device_kind} (asked for 12345678 bytes): lower "
        "--search.population-chunk or --search.image-chunk, or set --memory"
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), out_of_memory("x"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


@pytest.mark.parametrize(
    ("module", "stage", "setting"),
    [
        (init_module, "make_init", "--calibration.image-chunk"),
        (driver, "run", "--search.image-chunk"),
        (run_module, "score_run", "--evaluation-batch"),
    ],
)
def test_every_stage_names_its_setting(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    stage: str,
    setting: str,
) -> None:
    def exhausted(*args: object, **kwargs: object) -> None:
        raise jax.errors.JaxRuntimeError(EXHAUSTED)

    monkeypatch.setattr(module, stage, exhausted)
    with pytest.raises(UserError, match=f"out of memory on .* lower .*{setting}"):
        run_search(small_config(weights), tmp_path / "run")


def test_an_accelerator_is_filled_by_half(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the config sets stays; the rest grows as far as the memory allows."""
    setup = setup_with(weights, None)
    open_, half = replace(setup.config.search, image_chunk=None, population_chunk=None), 10**12
    setup = replace(setup, config=replace(setup.config, search=open_))
    assert fit_memory(setup, NUM_IMAGES) is setup  # not on a CPU
    monkeypatch.setattr("evolq_jax.pipeline.cost.usual_bytes", lambda: half)
    assert fit_memory(setup, NUM_IMAGES).config.search.chunks() == (60, 8)
    narrow = replace(setup, config=replace(setup.config, search=replace(open_, image_chunk=30)))
    assert fit_memory(narrow, NUM_IMAGES).config.search.chunks() == (30, 8)
    half = needs(weights, 60, 2) + 1
    fitted = fit_memory(setup, NUM_IMAGES)
    assert fitted.config.search.chunks() == (60, 2)
    assert needed_bytes(fitted, NUM_IMAGES) <= half
    limit = f"{(needs(weights, 60, 1) + 1000) / 1000}KB"
    limited = fit_memory(replace(setup, config=replace(setup.config, memory=limit)), NUM_IMAGES)
    assert math.prod(limited.config.search.chunks()) >= 60
    assert needed_bytes(limited, NUM_IMAGES) <= parse_bytes(limit)
