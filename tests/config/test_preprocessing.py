from typing import Any

import pytest

from evolq_jax.cli.override import override
from evolq_jax.config.experiment import Experiment
from evolq_jax.config.preprocessing import PreprocessingConfig
from evolq_jax.errors import UserError


def test_nothing_set_changes_nothing() -> None:
    assert PreprocessingConfig().changes == {}


@pytest.mark.parametrize(
    ("args", "changes"),
    [
        ("--preprocessing.mean 0.485 0.456 0.406", {"mean": (0.485, 0.456, 0.406)}),
        ("--preprocessing.std 0.5", {"std": (0.5,)}),
        ("--preprocessing.resize 32", {"resize": 32}),
        ("--preprocessing.resize None", {"resize": None}),
        ("--preprocessing.resize checkpoint", {}),
        (
            "--preprocessing.crop 288 --preprocessing.interpolation bilinear",
            {"size": 288, "interpolation": "bilinear"},
        ),
        ("--preprocessing.crop-mode squash", {"crop_mode": "squash"}),
    ],
)
def test_options_set_it(args: str, changes: dict[str, Any]) -> None:
    assert override(Experiment(), args.split(), "search").preprocessing.changes == changes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": (float("nan"),)}, r"preprocessing\.mean must be finite, not nan"),
        ({"std": (1.0, 0.0, 1.0)}, r"preprocessing\.std must be positive and finite, not 1, 0, 1"),
        ({"std": (-1.0,)}, r"preprocessing\.std must be positive"),
        ({"std": (float("inf"),)}, r"preprocessing\.std must be positive"),
        ({"mean": ()}, r"preprocessing\.mean needs a number"),
        ({"crop": 0}, r"preprocessing\.crop must be at least 1"),
        ({"resize": -1}, r"preprocessing\.resize must be at least 1"),
    ],
)
def test_what_no_image_can_be_prepared_with(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PreprocessingConfig(**settings)


def test_words_are_checked_in_config_files_too() -> None:
    with pytest.raises(UserError, match=r"preprocessing\.interpolation has the unknown value 'cubic'"):
        Experiment(preprocessing=PreprocessingConfig(interpolation="cubic"))  # pyright: ignore[reportArgumentType]
