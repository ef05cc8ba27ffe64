from dataclasses import replace

import jax
import pytest

from evolq_jax.errors import UserError
from evolq_jax.models.registry import REGISTRY, get_entry, list_models, param_shapes
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward
from evolq_jax.trees import unflatten

# from the papers' code releases, as timm prints them
NUM_PARAMS = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "vit_small_patch32_224": 22_878_952,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch16_384": 86_859_496,
    "vit_base_patch32_224": 88_224_232,
    "vit_large_patch16_224": 304_326_632,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_base_distilled_patch16_224": 87_338_192,
    "swin_tiny_patch4_window7_224": 28_288_354,
    "swin_small_patch4_window7_224": 49_606_258,
    "swin_base_patch4_window7_224": 87_768_224,
    "levit_256": 18_893_876,
    "levit_384": 39_128_836,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnext50_32x4d": 25_028_904,
    "wide_resnet50_2": 68_883_240,
    "resnet20_cifar10": 269_722,
    "resnet56_cifar10": 853_018,
    "regnetx_032": 15_296_552,
    "mobilenetv2_100": 3_504_872,
    "mobilenetv2_140": 6_108_776,
    "deit3_small_patch16_224": 22_059_496,
    "swin_base_patch4_window12_384": 87_903_584,
    "swin_large_patch4_window7_224": 196_532_476,
}


def test_rows_give_the_known_numbers_of_parameters() -> None:
    rows = {row.name: row for row in list_models()}
    assert set(rows) == set(REGISTRY)
    assert {name: rows[name].num_params for name in NUM_PARAMS} == NUM_PARAMS


def test_row_of_a_vit() -> None:
    row = next(row for row in list_models() if row.name == "deit_small_distilled_patch16_224")
    assert row[2:7] == (224, 16, 384, 12, 6)
    assert row.preprocessing.mean == (0.485, 0.456, 0.406)


def test_row_of_a_network_of_stages() -> None:
    row = next(row for row in list_models() if row.name == "swin_small_patch4_window7_224")
    assert row[2:7] == (224, 4, None, None, None)


def test_a_tag_names_the_same_model() -> None:
    assert get_entry("vit_tiny_patch16_224.augreg_in21k_ft_in1k") is get_entry("vit_tiny_patch16_224")


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'vit_tinny_patch16_224.*did you mean 'vit_tiny_patch16_224'\?"):
        get_entry("vit_tinny_patch16_224.augreg")


def test_data_configuration_belongs_to_the_checkpoint() -> None:
    augreg, deit = (
        get_entry(name).preprocessing for name in ("vit_base_patch16_384", "deit_base_patch16_224")
    )
    assert (augreg.size, augreg.resize, augreg.mean, augreg.std) == (384, 384, (0.5,) * 3, (0.5,) * 3)
    assert (deit.size, deit.resize, deit.std) == (224, 256, (0.229, 0.224, 0.225))


def of_each_kind() -> list[str]:
    """One name of every kind: its family, and what its config has beside numbers."""
    kinds = {
        (entry.family, *((k, v) for k, v in vars(entry.config).items() if isinstance(v, bool | str))): name
        for name, entry in sorted(REGISTRY.items())
    }
    return sorted(kinds.values())


@pytest.mark.parametrize("name", of_each_kind())
def test_every_network_gives_logits_of_its_images(name: str) -> None:
    entry = get_entry(name)
    shapes = param_shapes(entry.family, entry.config)
    params = unflatten({leaf: jax.ShapeDtypeStruct(shape, "float32") for leaf, shape in shapes.items()})
    size, channels = entry.preprocessing.size, len(entry.preprocessing.mean)
    images = jax.ShapeDtypeStruct((2, size, size, channels), "float32")
    parts = entry.make()
    logits = jax.eval_shape(lambda params, x: forward(parts, float_reading(params), x), params, images)
    assert logits.shape == (2, entry.config.num_classes)


def test_shapes_follow_the_number_of_classes() -> None:
    entry = get_entry("tiny")
    assert param_shapes(entry.family, replace(entry.config, num_classes=7))["head/bias"] == (7,)
