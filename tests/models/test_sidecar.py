import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from evolq_jax.errors import UserError
from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.models.registry import get_entry
from evolq_jax.network.network import Network
from evolq_jax.typing import Preprocessing
from tests.models.recipe import images
from tests.models.seeded import TINY, hugging_face, logits, timm_vit

TIMM = {
    "input_size": [3, 8, 8],
    "interpolation": "bilinear",
    "crop_pct": 0.9,
    "mean": [0.1, 0.2, 0.3],
    "std": [1, 2, 3],
}
PROCESSOR = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "resample": 2}


def load(folder: Path, config: Any, processor: Any = None, in_folder: bool = True) -> Network:
    save_file(hugging_face(timm_vit(TINY), "vit."), folder / "model.safetensors")
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return load_checkpoint("tiny", folder if in_folder else folder / "model.safetensors")


@pytest.mark.parametrize("in_folder", [True, False])
def test_timm_data_configuration(in_folder: bool, tmp_path: Path) -> None:
    model = load(tmp_path, {"architecture": "tiny", "pretrained_cfg": TIMM}, in_folder=in_folder)
    assert model.preprocessing == Preprocessing(
        8, 8, "bilinear", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0)
    )  # floor(8 / .9)
    assert (model.config.gelu_form, model.config.eps) == ("erf", 1e-6)


def test_timm_rounds_the_resize_down(tmp_path: Path) -> None:
    cfg = {"crop_pct": 0.875}
    assert load(tmp_path, {"pretrained_cfg": cfg}).preprocessing == Preprocessing(8, 9)
    assert load(tmp_path, {"pretrained_cfg": {"crop_pct": 0.6}}).preprocessing.resize == 13


def test_what_timm_leaves_out_is_the_registrys(tmp_path: Path) -> None:
    assert load(tmp_path, {"pretrained_cfg": {}}).preprocessing == get_entry("tiny").preprocessing


def test_gelu_form_of_timm(tmp_path: Path) -> None:
    config = {"pretrained_cfg": TIMM, "model_args": {"act_layer": "gelu_tanh"}}
    assert load(tmp_path, config).config.gelu_form == "tanh"


def test_gelu_form_and_eps_of_transformers_change_the_logits(tmp_path: Path) -> None:
    x = images(8, 3)
    exact = load(tmp_path, {"hidden_act": "gelu", "layer_norm_eps": 1e-6})
    tanh = load(tmp_path, {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6})
    eps = load(tmp_path, {"hidden_act": "gelu", "layer_norm_eps": 0.1})
    assert (tanh.config.gelu_form, eps.config.eps) == ("tanh", 0.1)
    assert exact.preprocessing == get_entry("tiny").preprocessing
    assert 1e-7 < np.abs(logits(tanh, x) - logits(exact, x)).max() < 1e-2
    assert np.abs(logits(eps, x) - logits(exact, x)).max() > 1e-3


@pytest.mark.parametrize(
    ("processor", "resize"),
    [
        ({"size": 8}, 8),
        ({"size": {"height": 8, "width": 8}, "do_center_crop": False, "crop_size": 4}, 8),
        ({"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}}, 10),
        ({"size": 9, "do_center_crop": True, "crop_size": 8}, 9),
        ({"size": 8, "do_resize": False}, None),
    ],
)
def test_transformers_data_configuration(
    processor: dict[str, Any], resize: int | None, tmp_path: Path
) -> None:
    model = load(tmp_path, {"hidden_act": "gelu"}, PROCESSOR | processor)
    assert model.preprocessing == Preprocessing(8, resize, "bilinear", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))


def test_transformers_without_normalisation(tmp_path: Path) -> None:
    model = load(tmp_path, {"hidden_act": "gelu"}, PROCESSOR | {"size": 8, "do_normalize": False})
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)


def test_a_config_of_something_else_changes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, {"anything": 1}).preprocessing == get_entry("tiny").preprocessing


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "config.json: not readable as JSON"),
        ("[]", "config.json: not a JSON object"),
        (
            {"architecture": "vit_digits", "pretrained_cfg": TIMM},
            "the weights beside it are 'vit_digits', not 'tiny'",
        ),
        (
            {"pretrained_cfg": TIMM | {"input_size": [3, 16, 16]}},
            "cropped to 16 pixels, but the model takes 8",
        ),
        ({"pretrained_cfg": TIMM | {"input_size": 8}}, "config.json: not understood"),
        ({"pretrained_cfg": TIMM | {"mean": [0.5]}}, "must have 3 numbers"),
        ({"pretrained_cfg": TIMM | {"mean": "grey"}}, "config.json: not understood"),
        ({"pretrained_cfg": None}, "config.json: not understood"),
        ({"hidden_act": "quick_gelu"}, "activation 'quick_gelu' is not supported"),
        ({"hidden_act": "gelu", "num_attention_heads": 4}, "num_attention_heads is 4, the model named has 3"),
    ],
)
def test_settings_that_cannot_hold(config: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, config)
    assert "\n" not in str(caught.value)


def test_settings_of_the_processor_that_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"preprocessor_config\.json: not understood"):
        load(tmp_path, {"hidden_act": "gelu"}, {"size": 8, "resample": 77})
