"""`export`, `info`, `verify`, `classify`: from a run to a file that proves itself."""

import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

import evolq_jax
from evolq_jax.cli.main import main
from evolq_jax.config.experiment import DataConfig
from evolq_jax.data.load import load_images
from evolq_jax.errors import UserError
from evolq_jax.integers.exported import Format, open_exported
from evolq_jax.integers.files import write_safetensors
from evolq_jax.integers.model import IntegerModel
from evolq_jax.runs.directory import CONFIG, INIT_SCALES, LOG
from evolq_jax.verbs.classify import run_classify
from evolq_jax.verbs.evaluate import run_evaluate
from evolq_jax.verbs.export import ExportResult, run_export
from evolq_jax.verbs.info import read_info
from evolq_jax.verbs.verify import run_verify
from tests.verbs.conftest import Finished


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    out = tmp_path_factory.mktemp("exported")
    return run_export(finished.path, ("onnx", "stablehlo"), out=out)


def test_scores_are_those_of_the_run_and_of_the_integers(exported: ExportResult, finished: Finished) -> None:
    evaluated = run_evaluate(finished.path)
    assert exported.network == "final"
    assert evaluated.final is not None
    assert exported.metrics["run"] == pytest.approx(asdict(evaluated.final), nan_ok=True)
    assert exported.metrics["float"] == pytest.approx(asdict(evaluated.float), nan_ok=True)
    integers, run = exported.metrics["integers"], exported.metrics["run"]
    assert integers["kl"] == pytest.approx(run["kl"], rel=0.1)
    assert integers["kl"] != run["kl"]  # computed from the integers, not copied


@pytest.mark.parametrize("kind", ["safetensors", "onnx", "stablehlo"])
def test_info_is_of_the_file_alone(kind: Format, exported: ExportResult) -> None:
    path = exported.files[kind]
    info = read_info(path)
    assert info.bytes == path.stat().st_size == exported.sizes[kind]
    assert info.float32 == exported.float32
    assert sum(count for count, _ in info.weights.values()) == 4 * 4 + 2
    assert (
        sum(numbers for _, numbers in info.weights.values()) == 4 * (64 * 192 + 64 * 64 + 2 * 64 * 128) + 896
    )
    assert info.about.metrics == exported.metrics
    assert "blocks/residual_in" in info.float_sites


@pytest.mark.parametrize("kind", ["safetensors", "onnx", "stablehlo"])
def test_a_file_verifies_against_its_integers(
    kind: Format, exported: ExportResult, finished: Finished
) -> None:
    result = run_verify(exported.files[kind], run_dir=finished.path)
    assert result.passed
    assert len(result.criteria) == 4
    assert not result.left_out
    data = DataConfig(evaluation="digits:test", num_evaluation=20)
    alone = run_verify(exported.files[kind], data=data)
    assert alone.passed
    assert [each.split(":")[0] for each in alone.left_out] == ["KL to float"]


def test_other_integers_do_not_verify(exported: ExportResult, tmp_path: Path, finished: Finished) -> None:
    model = evolq_jax.load(exported.files["safetensors"])
    assert isinstance(model, IntegerModel)
    numbers = model.qparams["blocks/norm1"]
    changed = {**model.qparams, "blocks/norm1": numbers._replace(scale=numbers.scale * 1.001)}
    other = write_safetensors(replace(model, qparams=changed), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="hold other integers: export them together"):
        run_verify(other, reference=exported.files["safetensors"], run_dir=finished.path)


def test_verify_wants_a_reference_and_images(exported: ExportResult, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(exported.files["safetensors"].read_bytes())
    with pytest.raises(UserError, match="is missing, which holds the integers"):
        run_verify(alone)
    with pytest.raises(UserError, match="lies in no run that names images"):
        run_verify(alone, reference=exported.files["safetensors"])


@pytest.mark.parametrize("kind", ["safetensors", "onnx", "stablehlo"])
def test_classes_are_those_of_the_file_s_logits(kind: Format, exported: ExportResult, pictures: Path) -> None:
    found = run_classify(exported.files[kind], [pictures], top=2)
    file = open_exported(exported.files[kind])
    pixels = load_images("digits:test", file.preprocessing, num=4, cache_dir=None).pixels
    for prediction, logits in zip(found.predictions, file.run(np.asarray(pixels)), strict=True):
        assert list(prediction.classes) == np.argsort(-logits)[:2].tolist()
        likely = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        np.testing.assert_allclose(prediction.probabilities, np.sort(likely)[:-3:-1], rtol=1e-3)
        assert prediction.float_class is None


def test_what_is_no_exported_file_is_refused(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"such files end in \.safetensors, \.onnx"):
        open_exported(finished.path / "config.json")
    with pytest.raises(UserError, match="no file at"):
        open_exported(tmp_path / "model.onnx")
    with pytest.raises(UserError, match="unknown format 'onx'; did you mean 'onnx'"):
        run_export(finished.path, ("onx",))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="holds no integers of evolq_jax"):
        read_info(finished.path / "init_scales.safetensors")


@pytest.mark.parametrize("kind", ["safetensors", "onnx", "stablehlo"])
def test_a_damaged_file_says_nothing_of_itself(kind: Format, exported: ExportResult, tmp_path: Path) -> None:
    """Its size, too, would be wrong."""
    copies = [
        Path(shutil.copy(file, tmp_path)) for file in exported.files[kind].parent.glob(f"quantized.{kind}*")
    ]
    file, content = copies[0].with_name(f"quantized.{kind}"), exported.files[kind].read_bytes()
    assert read_info(file).bytes == len(content)
    changed = bytearray(content)
    changed[len(content) * 3 // 4] ^= 1
    for damaged in (changed, content[: len(content) // 2], b""):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"changed|truncated|no ONNX file of evolq_jax"):
            read_info(file)


def test_info_shows_the_bits_of_every_site(
    exported: ExportResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = read_info(exported.files["onnx"])
    model = evolq_jax.load(exported.files["safetensors"])
    assert isinstance(model, IntegerModel)
    assert {site.site for site in info.sites} == {name for name, _ in model.specs}
    mixed = replace(info.sites[0], bits=(4, 4, 8, 2))
    monkeypatch.setattr(
        "evolq_jax.cli.commands.info.read_info", lambda _: replace(info, sites=(mixed, *info.sites[1:]))
    )
    monkeypatch.setattr(sys, "argv", ["evolq", "info", "quantized.onnx"])
    main()
    assert "4 4 8 2" in capsys.readouterr().out


def test_what_was_not_asked_for_or_cannot_be_written_is_found_before_scoring(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "evolq_jax.verbs.export.load_evaluation", lambda *_: pytest.fail("images are decoded")
    )
    with pytest.raises(UserError, match="--target is about ONNX files, and none is asked for"):
        run_export(finished.path, out=tmp_path / "new", target="tensorrt")
    with pytest.raises(UserError, match="--allow-float is about ONNX files, and none is asked for"):
        run_export(finished.path, ("stablehlo",), out=tmp_path / "new", allow_float=True)
    for package, kind, extra in (("onnx", "onnx", "onnx"), ("flatbuffers", "stablehlo", "stablehlo")):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match=rf"pip install 'evolq_jax\[{extra}\]'"):
                run_export(finished.path, (kind,), out=tmp_path / "new")  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"cannot write into .*name another folder"):
            run_export(finished.path, out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unfinished_search_is_exported_as_it_was_calibrated(
    finished: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in (CONFIG, LOG, INIT_SCALES):
        shutil.copy(finished.path / name, run)
    assert run_export(run).network == "init"
    assert "has not finished: its network is exported as it was calibrated" in caplog.text


def test_verify_wants_images_that_the_network_takes(exported: ExportResult, tmp_path: Path) -> None:
    np.savez(tmp_path / "colour.npz", image=np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="has 3-channel images, but the network takes 1-channel ones"):
        run_verify(exported.files["onnx"], data=DataConfig(evaluation=str(tmp_path / "colour.npz")))
    np.savez(tmp_path / "label.npz", image=np.zeros((2, 8, 8, 1), np.uint8), label=np.array([0, 10]))
    with pytest.raises(UserError, match="has label 10, but the network has 10 classes"):
        run_verify(exported.files["onnx"], data=DataConfig(evaluation=str(tmp_path / "label.npz")))


def test_verify_passes_over_the_pictures_that_the_run_passed_over(
    exported: ExportResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*args: object, **options: object) -> None:
        raise UserError(f"unreadable: {options['on_corrupt']}")

    monkeypatch.setattr("evolq_jax.pipeline.images.load_images", read)
    with pytest.raises(UserError, match="unreadable: skip"):
        run_verify(exported.files["onnx"], data=DataConfig(on_corrupt="skip"))
