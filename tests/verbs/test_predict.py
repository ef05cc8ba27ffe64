"""`predict`: the classes in pictures, the same as those of an evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evolq_jax.data.load import load_images
from evolq_jax.errors import UserError
from evolq_jax.pipeline.calibrate import stages_of
from evolq_jax.pipeline.class_names import class_names
from evolq_jax.quantized.logits import compute_logits
from evolq_jax.runs.directory import open_run
from evolq_jax.verbs.evaluate import load_run
from evolq_jax.verbs.predict import likeliest, run_predict
from tests.verbs.conftest import Finished


def test_the_classes_are_those_of_the_run_s_networks(finished: Finished, pictures: Path) -> None:
    found = run_predict(finished.path, [pictures], top=3)
    assert found.network == "final"
    assert [Path(each.image).name for each in found.predictions] == ["0.png", "1.png", "2.png", "3.png"]
    setup, params, saved = load_run(open_run(finished.path), finished.config)
    pixels = load_images("digits:test", setup.model.preprocessing, num=4, cache_dir=None).pixels
    last = stages_of(setup, params, ranges=None, init=saved.init, final=saved.final)["final"]
    logits = compute_logits(last, pixels, 4)
    likely = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    floats = compute_logits(setup.model, pixels, 4).argmax(-1)
    for number, prediction in enumerate(found.predictions):
        order = np.argsort(-logits[number])[:3]
        assert list(prediction.classes) == order.tolist()
        np.testing.assert_allclose(prediction.probabilities, likely[number, order], rtol=1e-3)
        assert prediction.float_class == floats[number]
    assert found.class_names is None


def test_a_class_list_gives_names(finished: Finished, pictures: Path, tmp_path: Path) -> None:
    listed = tmp_path / "classes.txt"
    listed.write_text("\n".join(f"digit{number}" for number in range(10)))
    config = replace(finished.config, data=replace(finished.config.data, class_index=str(listed)))
    found = run_predict(finished.path, [pictures / "0.png"], config=config)
    assert found.class_names is not None
    assert found.class_names[3] == "digit3"
    listed.write_text("one\ntwo\n")
    with pytest.raises(UserError, match="names 2 classes, but the network has 10: give its own list"):
        run_predict(finished.path, [pictures / "0.png"], config=config)


def test_what_is_no_picture_is_refused(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    for given, message in (
        ([], "name the pictures"),
        ([tmp_path / "missing.png"], "no picture at '"),
        ([tmp_path / "empty"], "no pictures in '"),
        ([tmp_path / "text.png"], "cannot read picture "),
    ):
        with pytest.raises(UserError, match=message):
            run_predict(finished.path, given)
    with pytest.raises(UserError, match="--top must be at least 1, not 0"):
        run_predict(finished.path, [tmp_path], top=0)


def test_one_output_tells_two_classes_apart(tmp_path: Path) -> None:
    found = [*likeliest([Path("a"), Path("b")], np.array([[-1.0], [2.0]], np.float32), 5)]
    assert [each.classes for each in found] == [(0, 1), (1, 0)]
    np.testing.assert_allclose(found[1].probabilities, (1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))), rtol=1e-6)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert class_names(str(tmp_path / "classes.txt"), 1) == ("cat", "dog")
