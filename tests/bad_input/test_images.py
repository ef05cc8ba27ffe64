import sys
from pathlib import Path

import pytest

from evolq_jax.cli import main as cli
from evolq_jax.errors import UserError
from evolq_jax.notes import say_once
from tests.bad_input.conftest import Refuse, npz, save_images


@pytest.mark.parametrize("verb", ["search", "calibrate", "evaluate"])
def test_a_missing_image_folder(refuse: Refuse, verb: str) -> None:
    line = refuse(verb, "config.py", "--data.calibration", "nowhere")
    assert line.startswith("image source nowhere does not exist")


@pytest.mark.parametrize("verb", ["search", "evaluate"])
def test_a_missing_evaluation_folder(refuse: Refuse, verb: str) -> None:
    line = refuse(verb, "config.py", "--data.evaluation", "digits:tset")
    assert line.startswith("image source digits:tset does not exist")
    assert "did you mean 'digits:test'?" in line


def test_an_empty_folder(refuse: Refuse, here: Path) -> None:
    (here / "empty").mkdir()
    assert refuse("search", "config.py", "--data.evaluation", "empty").startswith("no images in empty")


def test_an_unknown_class(refuse: Refuse, here: Path, rgb: tuple[str, ...]) -> None:
    save_images(here / "val" / "cat", 20)
    (here / "classes.txt").write_text("dog\nhorse\nmouse\n")
    folders = ("--data.calibration", "val", "--data.evaluation", "val")
    line = refuse(*rgb, *folders, "--data.class-index", "classes.txt")
    assert line.startswith("unknown class 'cat'")


def test_a_class_list_of_another_length(refuse: Refuse, here: Path, rgb: tuple[str, ...]) -> None:
    save_images(here / "val" / "cat", 30)
    (here / "classes.txt").write_text("background\ncat\ndog\nhorse\n")
    folders = ("--data.calibration", "val", "--data.evaluation", "val")
    assert refuse(*rgb, *folders, "--data.class-index", "classes.txt") == (
        "data.class_index lists 4 classes (the first is 'background'), but the network has 3: remove lines "
        "that are no class of it, or add those that lack"
    )


@pytest.mark.parametrize("labels", [[-1, -1], [0, -1], [0, 2**40]])
def test_labels_that_are_no_indices(refuse: Refuse, here: Path, labels: list[int]) -> None:
    source = npz(here / "val.npz", 2, labels=labels)
    line = refuse("search", "config.py", "--data.evaluation", source, "--data.num-evaluation", "None")
    assert line.startswith("val.npz: 'label' must be class indices from 0 on, but goes from ")


def test_a_missing_class_index(refuse: Refuse, here: Path) -> None:
    save_images(here / "val" / "cat", 2)
    line = refuse("search", "config.py", "--data.evaluation", "val", "--data.class-index", "classes.txt")
    assert line == "cannot read class_index classes.txt: No such file or directory"


def test_a_class_index_where_there_are_labels(refuse: Refuse) -> None:
    assert "class_index is for folders" in refuse("search", "config.py", "--data.class-index", "classes.txt")


def test_a_label_beyond_the_classes(refuse: Refuse, here: Path) -> None:
    source = npz(here / "val.npz", 2, labels=[0, 10])
    line = refuse("search", "config.py", "--data.evaluation", source, "--data.num-evaluation", "None")
    assert line.startswith("'val.npz' has label 10, but the network has 10 classes")


def test_images_of_other_channels(refuse: Refuse, here: Path) -> None:
    source = npz(here / "rgb.npz", 30, channels=3)
    line = refuse("search", "config.py", "--data.calibration", source)
    assert line == "'rgb.npz' has 3-channel images, but the network takes 1-channel ones"


def test_an_evaluation_resize_below_the_network_s_size(refuse: Refuse) -> None:
    line = refuse("search", "config.py", "--data.evaluation-resize", "4")
    assert line == "data.evaluation_resize (4) is below the network's image size (8)"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data.num-calibration", "0"), "data.num_calibration must be at least 1, not 0"),
        (("--data.num-calibration", "5"), "5 calibration images are fewer than one batch of 10"),
        (("--data.num-calibration", "15"), "15 calibration images are no whole number of batches of 10"),
        (("--data.num-calibration", "2000"), "data.num_calibration asks for 2000 images, but 'digits:train'"),
        (("--data.num-evaluation", "2000"), "data.num_evaluation asks for 2000 images, but 'digits:test'"),
        (("--search.batch-size", "20", "--search.holdout", "0.5"), "leaves no whole batch of 20 on one side"),
    ],
)
def test_numbers_of_images(refuse: Refuse, args: tuple[str, ...], message: str) -> None:
    assert message in refuse("search", "config.py", *args)


def test_fewer_images_than_a_batch_in_the_source(refuse: Refuse, here: Path) -> None:
    source = npz(here / "few.npz", 5)
    few = ("--data.calibration", source, "--data.num-calibration", "None")
    assert refuse("calibrate", "config.py", *few) == (
        "5 calibration images are fewer than one batch of 10: "
        "change calibration.batch_size or data.num_calibration"
    )


@pytest.mark.parametrize("which", ["calibration", "evaluation"])
def test_an_unreadable_image(refuse_late: Refuse, here: Path, rgb: tuple[str, ...], which: str) -> None:
    for name in ("calibration", "evaluation"):
        save_images(here / name, 20)
    (here / which / "3.png").write_bytes(b"no image")
    folders = ("--data.calibration", "calibration", "--data.evaluation", "evaluation")
    line = refuse_late(*rgb, *folders, "--data.num-evaluation", "None")
    assert line.startswith(f"cannot read image {which}/3.png")


def test_a_skipped_image_that_breaks_a_batch(refuse_late: Refuse, here: Path, rgb: tuple[str, ...]) -> None:
    for name in ("calibration", "evaluation"):
        save_images(here / name, 20)
    (here / "calibration" / "3.png").write_bytes(b"no image")
    folders = ("--data.calibration", "calibration", "--data.evaluation", "evaluation")
    line = refuse_late(*rgb, *folders, "--data.num-evaluation", "None", "--data.on-corrupt", "skip")
    assert line.startswith(
        "19 calibration images (1 unreadable ones left out) are no whole number of batches"
    )


def test_a_note_is_a_line_for_people(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say_once.cache_clear()
    monkeypatch.setattr(sys, "argv", ["evolq", "search", "config.py", "--data.calibration", "digits:test"])
    monkeypatch.setattr("evolq_jax.pipeline.images.load_images", refuse_loading)
    with pytest.raises(SystemExit):
        cli.main()
    note, error = capsys.readouterr().err.splitlines()
    assert note.startswith("evolq: note: calibration ('digits:test') and evaluation ('digits:test') can have")
    assert error == "evolq: error: not now"


def refuse_loading(*args: object, **options: object) -> None:
    raise UserError("not now")
