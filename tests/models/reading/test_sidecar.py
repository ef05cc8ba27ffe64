"""What lies beside the weights: a key is applied, refused with its value, harmless, or warned of."""

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
STATED = Preprocessing(8, 8, "bilinear", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))  # floor(8 / 0.9)
PROCESSOR = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "resample": 2}


def load(folder: Path, config: Any = None, processor: Any = None, in_folder: bool = True) -> Network:
    save_file(hugging_face(timm_vit(TINY), "vit."), folder / "model.safetensors")
    for name, content in (("config.json", config), ("preprocessor_config.json", processor)):
        if content is not None:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return load_checkpoint("tiny", folder if in_folder else folder / "model.safetensors")


@pytest.mark.parametrize("in_folder", [True, False])
def test_timm_data_configuration(in_folder: bool, tmp_path: Path) -> None:
    model = load(tmp_path, {"architecture": "tiny", "pretrained_cfg": TIMM}, in_folder=in_folder)
    assert model.preprocessing == STATED
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
    ("processor", "resize", "mode"),
    [
        ({"size": 8}, 8, "squash"),
        ({"size": {"height": 8, "width": 8}, "do_center_crop": False, "crop_size": 4}, 8, "squash"),
        (
            {"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}},
            10,
            "center",
        ),
        ({"size": {"shortest_edge": 10}, "crop_size": 8}, 10, "center"),
        ({"size": 9, "do_center_crop": True, "crop_size": 8}, 9, "squash"),
        ({"size": 9, "crop_size": 8, "image_processor_type": "CLIPImageProcessor"}, 9, "center"),
        ({"size": 9, "crop_size": 8, "default_to_square": False}, 9, "center"),
        ({"size": 8, "do_resize": False}, None, "center"),
        ({"size": {"shortest_edge": 8}, "crop_pct": 0.8}, 10, "center"),
        ({"size": {"shortest_edge": 8}, "image_processor_type": "ConvNextImageProcessor"}, 9, "center"),
        (
            {"size": {"shortest_edge": 8}, "crop_size": 8, "image_processor_type": "LevitImageProcessor"},
            9,
            "center",
        ),
        ({"crop_size": 8}, 9, "center"),
        ({}, 9, "center"),
    ],
)
def test_transformers_data_configuration(
    processor: dict[str, Any], resize: int | None, mode: str, tmp_path: Path
) -> None:
    model = load(tmp_path, {"hidden_act": "gelu"}, PROCESSOR | processor)
    assert model.preprocessing == Preprocessing(8, resize, "bilinear", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), mode)


def test_the_processor_alone_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, None, PROCESSOR | {"size": 8}).preprocessing.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}, 0.5, 0.5),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, 0.5, 0.5),
        (
            {"rescale_factor": 0.00392156862745098, "image_mean": [0.25] * 3, "image_std": [0.5] * 3},
            0.25,
            0.5,
        ),
        ({"do_rescale": False, "do_normalize": False}, 0.0, 1 / 255),
        ({"do_normalize": False}, 0.0, 1.0),
    ],
)
def test_pixels_are_rescaled_as_the_processor_does(
    processor: dict[str, Any], mean: float, std: float, tmp_path: Path
) -> None:
    preprocessing = load(tmp_path, None, PROCESSOR | {"size": 8} | processor).preprocessing
    assert preprocessing.mean == pytest.approx((mean,) * 3, rel=1e-12)
    assert preprocessing.std == pytest.approx((std,) * 3, rel=1e-12)


def test_a_config_of_something_else_changes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, {"anything": 1}).preprocessing == get_entry("tiny").preprocessing


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "config.json: not readable as JSON"),
        ("[]", "config.json: not a JSON object"),
        ("[" * 100_000, r"not readable as JSON \(nested too deeply"),
        ('{"a":' * 100_000, r"not readable as JSON \(nested too deeply"),
        ('{"layer_norm_eps": ' + "9" * 6_000 + "}", "config.json: not readable as JSON"),
        ('{"mean": [0], "mean": [1]}', "'mean' stands twice"),
        (
            {"architecture": "vit_digits", "pretrained_cfg": TIMM},
            "the weights beside it are 'vit_digits', not 'tiny'",
        ),
        (
            {"architecture": "tf_tiny"},
            "are 'tf_tiny', not 'tiny': evolq_jax does not have that network, or move",
        ),
        ({"architecture": 3}, "architecture is 3, not a name"),
        ({"pretrained_cfg": TIMM | {"input_size": 8}}, "input_size is 8, not .channels, height, width"),
        ({"pretrained_cfg": TIMM | {"input_size": [3, 8, 12]}}, "only square images"),
        ({"pretrained_cfg": TIMM | {"input_size": [3, 10**400, 8]}}, "only square images"),
        ({"pretrained_cfg": TIMM | {"input_size": [3, 0, 0]}}, "input_size is 0, not a number of pixels"),
        ({"pretrained_cfg": TIMM | {"mean": [0.5]}}, "must have 3 numbers"),
        ({"pretrained_cfg": TIMM | {"mean": "grey"}}, 'mean is "grey", not a list of numbers'),
        ({"pretrained_cfg": TIMM | {"mean": [0, float("nan"), 0]}}, "mean is NaN, not a finite number"),
        ({"pretrained_cfg": TIMM | {"std": [1, float("inf"), 1]}}, "std is Infinity, not a finite number"),
        ({"pretrained_cfg": TIMM | {"std": [1, 0, 1]}}, "config.json: preprocessing.std must be positive"),
        ({"pretrained_cfg": TIMM | {"std": [1, -1, 1]}}, "config.json: preprocessing.std must be positive"),
        ({"pretrained_cfg": TIMM | {"mean": [10**400, 0, 0]}}, "not a finite number"),
        ({"pretrained_cfg": TIMM | {"crop_pct": 0}}, "crop_pct is 0, not a share"),
        ({"pretrained_cfg": TIMM | {"crop_pct": True}}, "crop_pct is true, not a finite number"),
        ({"pretrained_cfg": TIMM | {"crop_mode": "border"}}, 'crop_mode is "border", which is not supported'),
        ({"pretrained_cfg": TIMM | {"interpolation": "random"}}, 'interpolation is "random"'),
        ({"pretrained_cfg": TIMM | {"label_offset": 1}}, "label_offset is 1"),
        ({"pretrained_cfg": 3}, "pretrained_cfg is 3, not an object"),
        ({"pretrained_cfg": TIMM, "model_args": [1]}, "model_args is .1., not an object"),
        ({"pretrained_cfg": TIMM, "global_pool": "max"}, 'global_pool is "max", which is not supported'),
        ({"pretrained_cfg": TIMM, "model_args": {"global_pool": ""}}, 'global_pool is ""'),
        ({"pretrained_cfg": TIMM, "model_args": {"act_layer": "silu"}}, 'act_layer is "silu"'),
        (
            {"pretrained_cfg": TIMM, "model_args": {"act_layer": "relu"}},
            'act_layer is "relu", and the network named',
        ),
        ({"pretrained_cfg": TIMM, "global_pool": "avg"}, "lacks 2 keys: fc_norm"),
        ({"pretrained_cfg": TIMM, "model_args": {"norm_layer": "rmsnorm"}}, 'norm_layer is "rmsnorm"'),
        ({"pretrained_cfg": TIMM, "model_args": {"num_heads": "3"}}, 'num_heads is "3"'),
        ({"pretrained_cfg": TIMM, "model_args": {"num_heads": 0}}, "num_heads is 0"),
        ({"pretrained_cfg": TIMM, "model_args": {"num_heads": [3, 3]}}, "num_heads is"),
        (
            {"pretrained_cfg": TIMM, "model_args": {"window_size": 7}},
            "window_size is 7, and this network has no window",
        ),
        ({"hidden_act": "swish"}, 'hidden_act is "swish", which is not supported'),
        ({"hidden_act": "gelu", "layer_norm_eps": "1e-6"}, 'layer_norm_eps is "1e-6"'),
        ({"hidden_act": "gelu", "layer_norm_eps": -1}, "layer_norm_eps is -1"),
        ({"hidden_act": "gelu", "qkv_bias": "some"}, 'qkv_bias is "some"'),
        ({"model_type": "beit"}, 'model_type is "beit", which is not read'),
        ({"hidden_act": "gelu", "image_size": [8, 12]}, "only square images"),
        ({"hidden_act": "gelu", "quantization_config": {"bits": 4}}, "quantization_config is"),
    ],
)
def test_settings_that_cannot_hold(config: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        ({"size": 8, "resample": 77}, "resample is 77"),
        ({"size": {"height": 8, "width": 9}}, "only square images"),
        ({"size": {"shortest_edge": 8}}, "only square images"),
        ({"size": {"shortest_edge": 8, "longest_edge": 9}}, "a longest_edge is not supported"),
        ({"size": "8"}, 'size is "8"'),
        ({"size": 8, "rescale_factor": 0}, "rescale_factor is 0"),
        ({"size": 8, "image_std": [1, 1]}, "must have 3 numbers"),
        ({"size": 8, "image_std": [1, 1, 0]}, "preprocessing.std must be positive"),
        ({"size": 8, "do_flip_channel_order": True}, "do_flip_channel_order is true"),
        ({"size": 8, "do_normalize": "no"}, 'do_normalize is "no", not true or false'),
    ],
)
def test_settings_of_the_processor_that_cannot_hold(
    processor: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, {"hidden_act": "gelu"}, processor)
    assert str(caught.value).startswith(str(tmp_path / "preprocessor_config.json"))
    assert "\n" not in str(caught.value)


def test_timms_older_flat_form_is_read(tmp_path: Path) -> None:
    flat = TIMM | {"architecture": "tiny", "num_features": 12, "num_classes": 5, "labels": ["a"], "url": ""}
    assert load(tmp_path, flat).preprocessing == STATED
    assert load(tmp_path, TIMM).preprocessing == STATED


def test_images_are_prepared_as_for_timms_tests(tmp_path: Path) -> None:
    crop = load(tmp_path, {"pretrained_cfg": TIMM | {"test_crop_pct": 0.5}}).preprocessing
    assert (crop.size, crop.resize) == (8, 16)
    squash = load(tmp_path, {"pretrained_cfg": TIMM | {"crop_mode": "squash"}}).preprocessing
    assert (squash.crop_mode, squash.resize) == ("squash", 8)


def test_heads_change_the_logits(tmp_path: Path) -> None:
    x = images(8, 3)
    three = load(tmp_path, {"pretrained_cfg": TIMM})
    six = load(tmp_path, {"pretrained_cfg": TIMM, "model_args": {"num_heads": 6}})
    theirs = load(tmp_path, {"hidden_act": "gelu", "num_attention_heads": 6, "layer_norm_eps": 1e-6})
    assert six.config.num_heads == 6
    assert np.abs(logits(six, x) - logits(three, x)).max() > 1e-2
    np.testing.assert_array_equal(logits(six, x), logits(theirs, x))


def test_what_agrees_or_is_harmless_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    args = {"num_heads": 3, "patch_size": 4, "mlp_ratio": 20 / 12, "fc_norm": False, "drop_path_rate": 0.1}
    args |= {
        "img_size": 8,
        "qkv_bias": True,
        "class_token": True,
        "global_pool": "token",
        "init_values": None,
    }
    top = {"num_classes": 5, "num_features": 12, "global_pool": "token", "label_names": ["a"]}
    config = {"architecture": "tiny.tag", "pretrained_cfg": TIMM | {"tag": "x"}, "model_args": args, **top}
    assert load(tmp_path, config).config == load(tmp_path, {"pretrained_cfg": TIMM}).config
    assert caplog.messages == []


def test_unknown_keys_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(tmp_path, {"pretrained_cfg": TIMM, "model_args": {"twist": 7}, "spin": None})
    assert [m.split(": ", 1)[1] for m in caplog.messages] == ["unknown, so not applied: twist (7)"]
    caplog.clear()
    load(tmp_path, {"hidden_act": "gelu", "swirl": "x" * 100}, {"size": 8, "fade": True})
    config, processor = (message.split(": ", 1)[1] for message in caplog.messages)
    assert config.startswith('unknown, so not applied: swirl ("xxxx')
    assert processor == "unknown, so not applied: fade (true)"
    assert all("\n" not in message for message in caplog.messages)


def test_two_files_that_say_how_images_are_prepared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load(tmp_path, {"pretrained_cfg": TIMM}, {"size": 4}).preprocessing == STATED
    assert "preprocessor_config.json: not read" in caplog.text


def test_a_tag_without_a_file_that_says_how_images_are_prepared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file(timm_vit(TINY), tmp_path / "model.safetensors")
    load_checkpoint("tiny", tmp_path)
    load_checkpoint("tiny.a", tmp_path, preprocessing={"mean": (0.0, 0.0, 0.0)})
    assert caplog.messages == []
    load_checkpoint("tiny.a", tmp_path)
    (message,) = caplog.messages
    assert "how 'tiny.a' prepares images" in message
    assert "shorter side to 9 (bicubic), crop 8, mean 0.5, std 0.5" in message


@pytest.mark.parametrize("name", ["tiny.tag", "tiny_in21k", "tiny_in22ft1k"])
def test_older_names_of_the_same_network(name: str, tmp_path: Path) -> None:
    assert load(tmp_path, {"architecture": name, **TIMM}).preprocessing == STATED


def test_channels_of_the_images(tmp_path: Path) -> None:
    grey = {"pretrained_cfg": TIMM | {"input_size": [1, 8, 8], "mean": [0.1], "std": [1]}}
    with pytest.raises(
        UserError, match=r"patch_embeddings.projection.weight has shape .* where \[12, 1, 4, 4\]"
    ):
        load(tmp_path, grey)
