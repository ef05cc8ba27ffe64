"""An artifact computes what the model does, bit for bit, without this library, and says what it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.integers.build import integer_model
from evolq_jax.integers.describe import describe
from evolq_jax.integers.model import IntegerModel
from evolq_jax.integers.stablehlo import (
    description_path,
    open_stablehlo,
    read_stablehlo,
    write_stablehlo,
)
from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.network.network import Network
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quantized.calibrate import calibrate
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.typing import Array
from tests.tiny import Tiny

pytest.importorskip("flatbuffers", reason="flatbuffers is not installed: pip install 'evolq_jax[stablehlo]'")

VIT_TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"

ELSEWHERE = """
import sys
for name in ("evolq_jax", "flax", "optax", "evosax", "safetensors", "PIL"):
    sys.modules[name] = None  # importing it fails
import jax
import jax.export
import numpy as np
run = jax.export.deserialize(open(sys.argv[1], "rb").read()).call
np.save(sys.argv[3], run(np.load(sys.argv[2])))
"""


def assert_equal(found: Array, wanted: Array) -> None:
    """Bit for bit; but jax 0.11 compiles an artifact in another way, which moves single codes."""
    if jax.__version_info__ < (0, 11):
        np.testing.assert_array_equal(found, wanted)
    assert jnp.abs(found - wanted).mean() < 0.05 * wanted.std()


@pytest.fixture
def artifact(model: IntegerModel, tmp_path: Path) -> Path:
    return write_stablehlo(model, tmp_path / "q.stablehlo")


def test_it_runs_in_a_process_without_this_library(
    artifact: Path, model: IntegerModel, tiny: Tiny, tmp_path: Path
) -> None:
    images, found = tmp_path / "images.npy", tmp_path / "logits.npy"
    np.save(images, tiny.pixels)
    alike = {"JAX_DISABLE_MOST_OPTIMIZATIONS": str(jax.config.read("jax_disable_most_optimizations"))}
    given = [sys.executable, "-c", ELSEWHERE, artifact, images, found]
    subprocess.run(given, check=True, env=os.environ | alike)
    np.testing.assert_array_equal(np.load(found), model(tiny.pixels))


def test_it_takes_any_number_of_images(artifact: Path, model: IntegerModel, tiny: Tiny) -> None:
    run = open_stablehlo(artifact)
    for number in (1, 12):
        np.testing.assert_array_equal(run(tiny.pixels[:number]), model(tiny.pixels[:number]))
    many = np.concatenate([tiny.pixels] * 5)
    np.testing.assert_allclose(run(many), model(many), atol=1e-5)


def test_vit_tiny_is_small(shared: Path, tmp_path: Path) -> None:
    """Compiled with all of XLA's optimisations, as tests on real weights are."""
    network = load_checkpoint(VIT_TINY, shared / f"data/weights/{VIT_TINY}.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    model = integer_model(calibrate(network, pixels, QuantConfig("deploy"), chain=("ranges",)))
    path = write_stablehlo(model, tmp_path / "q.stablehlo")
    assert round(path.stat().st_size / 1e6, 2) <= 3.4  # 3.397 by jax 0.10, 3.402 by 0.11
    assert_equal(open_stablehlo(path)(pixels), model(pixels))


def test_mixed_bits_logarithms_and_factors_run(mixed: QuantizedNetwork, tiny: Tiny, tmp_path: Path) -> None:
    model = integer_model(mixed)
    run = open_stablehlo(write_stablehlo(model, tmp_path / "q", platforms=["cpu"]))
    np.testing.assert_array_equal(run(tiny.pixels), model(tiny.pixels))


def test_integer_norms_and_softmax_run(network: Network, tiny: Tiny, tmp_path: Path) -> None:
    quant = QuantConfig(
        "fully_quantized",
        softmax_bits=4,
        softmax_quantizer="log2",
        gelu_quantizer="twin",
        integer_layer_norm=True,
        integer_softmax=True,
    )
    model = integer_model(calibrate(network, tiny.pixels, quant, chain=("ranges",)))
    run = open_stablehlo(write_stablehlo(model, tmp_path / "q", platforms=["cpu"]))
    assert_equal(run(tiny.pixels), model(tiny.pixels))


def test_it_says_what_it_is(artifact: Path, model: IntegerModel) -> None:
    found, _ = read_stablehlo(artifact)
    assert found.items() >= json.loads(json.dumps(describe(model))).items()
    assert found["platforms"] == ["cpu", "cuda", "tpu"]
    exported = jax.export.deserialize(bytearray(artifact.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert sorted(file.name for file in artifact.parent.iterdir()) == ["q.stablehlo", "q.stablehlo.json"]


def test_codes_take_their_bits(mixed: QuantizedNetwork, tmp_path: Path) -> None:
    """At eight bits all codes are larger by what the others leave out of a byte."""
    sizes = [
        write_stablehlo(model, tmp_path / "q", platforms=["cpu"]).stat().st_size
        for model in (integer_model(mixed), _with_whole_bytes(integer_model(mixed)))
    ]
    left_out = sum(
        w.codes[0].size * sum(8 - bits for bits in w.bits.tolist())
        for name, w in integer_model(mixed).weights.items()
        if name.startswith("blocks/")
    )
    assert sizes[1] - sizes[0] > 0.9 * left_out / 8


def _with_whole_bytes(model: IntegerModel) -> IntegerModel:
    names = {name for name, spec in model.specs if spec.codes}
    qparams = {
        name: numbers._replace(bits=0 * numbers.bits + 8) if name in names else numbers
        for name, numbers in model.qparams.items()
    }
    return model.replace(qparams=qparams)  # type: ignore[attr-defined]


def test_a_changed_byte_is_refused_by_name(artifact: Path) -> None:
    content = bytearray(artifact.read_bytes())
    for changed in (content[:-1], content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]):
        artifact.write_bytes(changed)
        with pytest.raises(UserError, match=r"q\.stablehlo' was changed or truncated"):
            open_stablehlo(artifact)


def test_a_changed_description_is_refused_by_name(artifact: Path) -> None:
    beside = description_path(artifact)
    beside.write_text(beside.read_text().replace('"tiny"', '"other"'))
    with pytest.raises(UserError, match=r"q\.stablehlo\.json': its description was edited or damaged"):
        open_stablehlo(artifact)
    beside.unlink()
    with pytest.raises(UserError, match=r"q\.stablehlo\.json' is missing, which describes"):
        open_stablehlo(artifact)


def test_other_images_and_platforms_are_refused(artifact: Path, model: IntegerModel, tiny: Tiny) -> None:
    with pytest.raises(
        UserError, match=r"takes uint8 images \[B, 16, 16, 3\], not float32 \[12, 16, 16, 3\]"
    ):
        open_stablehlo(artifact)(tiny.images)
    with pytest.raises(UserError, match="no platform gpu: take some of cpu, cuda, tpu"):
        write_stablehlo(model, artifact, platforms=["gpu"])
    other = write_stablehlo(model, artifact, platforms=["tpu"])
    if jax.default_backend() != "tpu":
        with pytest.raises(UserError, match="was written for tpu, and this device is of the kind"):
            open_stablehlo(other)


def test_a_missing_package_is_named(
    model: IntegerModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(UserError, match=r"pip install 'evolq_jax\[stablehlo\]'"):
        write_stablehlo(model, tmp_path / "q")
    assert [*tmp_path.iterdir()] == []
