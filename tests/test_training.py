from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.models.vit import ViTConfig, make_vit
from evolq_jax.models.vit_params import init_params
from evolq_jax.network.network import Network
from evolq_jax.training import Epoch, Labelled, TrainConfig, shift_images, train
from evolq_jax.trees import flatten
from evolq_jax.typing import Params, Preprocessing

MODEL = ViTConfig(
    image_size=4, patch_size=2, channels=1, width=16, depth=2, num_heads=2, mlp_width=32, num_classes=2
)
CONFIG = TrainConfig(epochs=15, batch_size=16, learning_rate=1e-2, warmup=1, shift=1)
SMOOTHED = TrainConfig(
    epochs=3, batch_size=8, learning_rate=1e-2, warmup=0, weight_decay=1.0, label_smoothing=0.5
)


def stripes(count: int = 64, seed: int = 0) -> Labelled:
    """Noisy horizontal (0) and vertical (1) stripes: the class survives every shift."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    rows = np.broadcast_to(np.arange(4)[:, None] % 2, (4, 4))
    patterns = np.stack([rows, rows.T])[labels] * 150
    pixels = (patterns + rng.integers(0, 100, patterns.shape)).astype(np.uint8)[..., None]
    return Labelled(pixels, labels)


def network_of(params: Params) -> Network:
    return Network(make_vit(MODEL), params, Preprocessing(size=4, resize=None, mean=(0.5,), std=(0.5,)))


def run(seed: int, on_epoch: Callable[[Epoch], None]) -> tuple[Network, list[Epoch]]:
    network = network_of(init_params(jax.random.key(seed), MODEL))
    return train(network, stripes(), replace(CONFIG, seed=seed), on_epoch=on_epoch)


def test_it_learns_and_reports_every_epoch() -> None:
    told: list[Epoch] = []
    _, history = run(0, told.append)
    assert history == told
    assert [epoch.number for epoch in history] == list(range(1, 16))
    assert history[0].loss > 0.5
    assert history[-1].loss < 0.1
    assert history[-1].accuracy > 0.95


def test_the_seed_decides_the_result() -> None:
    (first, _), (again, _), (other, _) = (run(seed, lambda epoch: None) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert not jax.tree.all(jax.tree.map(np.array_equal, first, other))


def test_only_weights_decay() -> None:
    # Constant images of both classes and equal classes in the network: the gradient is exactly zero (all its
    # numbers are quarters), so decay alone moves the parameters, at rates along half a cosine.
    images = Labelled(np.full((8, 4, 4, 1), 128, np.uint8), np.arange(8) % 2)
    ones = jax.tree.map(jnp.ones_like, init_params(jax.random.key(0), MODEL))
    trained = flatten(train(network_of(ones), images, SMOOTHED)[0].params)
    rates = 1e-2 * (1 + np.cos(np.pi * np.arange(3) / 3)) / 2
    layers = {f"blocks/{name}" for name in ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2")}
    weights = {f"{name}/weight" for name in layers | {"patch_embed/proj", "head"}}
    for name, leaf in trained.items():
        left = np.prod(1 - rates) if name in weights else 1.0
        np.testing.assert_allclose(leaf, left, rtol=1e-6, err_msg=name)


def test_targets_are_smoothed() -> None:
    # the loss of the first step, of a classifier that says 2 for class 0 and 0 for class 1
    params = init_params(jax.random.key(0), MODEL)
    params |= {"head": {"weight": jnp.zeros((16, 2)), "bias": jnp.array([2.0, 0.0])}}
    images = Labelled(np.zeros((8, 4, 4, 1), np.uint8), np.zeros(8, int))
    _, history = train(network_of(params), images, SMOOTHED)
    log_p = np.array([2.0, 0.0]) - np.log(np.exp(2.0) + 1.0)
    assert history[0].loss == pytest.approx(-(0.75 * log_p[0] + 0.25 * log_p[1]), rel=1e-5)
    assert history[0].accuracy == 1.0


def test_shifts_are_whole_pixels_with_edges_repeated() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 5, 5, 1), dtype=np.uint8)
    moved = np.asarray(shift_images(jnp.asarray(images), jax.random.key(0), 1))
    seen: set[int] = set()
    for image, result in zip(images, moved, strict=True):
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        crops = [padded[i : i + 5, j : j + 5] for i in range(3) for j in range(3)]
        matches = [number for number, crop in enumerate(crops) if np.array_equal(crop, result)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert seen == set(range(9))


def test_no_shift_leaves_images_alone() -> None:
    images = jnp.arange(32, dtype=jnp.uint8).reshape(2, 4, 4, 1)
    assert np.array_equal(shift_images(images, jax.random.key(0), 0), images)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, r"train\.epochs must be at least 1, not 0"),
        ("batch_size", 0, r"train\.batch_size must be at least 1, not 0"),
        ("shift", -1, r"train\.shift must be at least 0, not -1"),
        ("learning_rate", 0.0, r"train\.learning_rate must be positive, not 0\.0"),
        ("learning_rate", float("nan"), r"train\.learning_rate must be positive, not nan"),
        ("weight_decay", -0.1, r"train\.weight_decay must not be negative"),
        ("label_smoothing", 1.0, r"train\.label_smoothing must be from 0 to below 1, not 1\.0"),
        ("warmup", 100, r"train\.warmup \(100 epochs\) must be shorter than train\.epochs \(100\)"),
    ],
)
def test_settings_that_mean_nothing_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(TrainConfig(epochs=100), **{field: value})


@pytest.mark.parametrize(
    ("labels", "config", "message"),
    [
        ([0, 1, 2, 0], TrainConfig(batch_size=4), r"label 2 is outside the network's 2 classes \(0 to 1\)"),
        ([0, 1, -1, 0], TrainConfig(batch_size=4), r"label -1 is outside"),
        ([0, 1, 0, 0], TrainConfig(batch_size=5), r"train\.batch_size is 5, but there are only 4 images"),
    ],
)
def test_unfit_data_are_refused(labels: list[int], config: TrainConfig, message: str) -> None:
    params = init_params(jax.random.key(0), MODEL)
    images = Labelled(np.zeros((4, 4, 4, 1), np.uint8), np.array(labels))
    with pytest.raises(UserError, match=message):
        train(network_of(params), images, config)


def test_a_diverged_loss_is_reported() -> None:
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, init_params(jax.random.key(0), MODEL))
    with pytest.raises(UserError, match=r"the loss became nan in epoch 1: lower train\.learning_rate"):
        train(network_of(params), stripes(), CONFIG)


def test_a_batch_that_is_too_large_is_lowered() -> None:
    """To the number of images that the message names."""
    network = network_of(init_params(jax.random.key(0), MODEL))
    images, large = Labelled(np.zeros((4, 4, 4, 1), np.uint8), np.array([0, 1, 0, 0])), CONFIG.batch_size
    with pytest.raises(UserError, match=rf"train\.batch_size is {large}, but there are only 4 images"):
        train(network, images, replace(CONFIG, epochs=2, warmup=1))
    _, history = train(network, images, replace(CONFIG, epochs=2, warmup=1, batch_size=4))
    assert len(history) == 2


def test_a_rate_that_diverges_is_lowered() -> None:
    """As the message says."""
    params, wild = init_params(jax.random.key(0), MODEL), replace(CONFIG, epochs=6, learning_rate=1e25)
    with pytest.raises(UserError, match=r"lower train\.learning_rate"):
        train(network_of(params), stripes(), wild)
    _, history = train(network_of(params), stripes(), replace(wild, learning_rate=1e-2))
    assert history[-1].loss < history[0].loss
