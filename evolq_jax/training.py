"""Trains a float network on images that fit in memory: AdamW, warmup, cosine, one program per epoch."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evolq_jax.errors import UserError
from evolq_jax.network.network import Network
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params

CLIP_NORM = 1.0  # of the gradient over all parameters, as in the ViT paper (2010.11929, table 3)


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    Attributes:
      epochs: times over all images.
      batch_size: images per step. Images beyond the last whole batch of an epoch wait for the next epoch.
      learning_rate: AdamW's, at its peak. It then falls to zero along a cosine (1711.05101, 1608.03983).
      warmup: epochs in which the learning rate rises from zero to its peak.
      weight_decay: decoupled, on matrices and kernels only (no biases, norms, tokens or positions).
      label_smoothing: share of the target that is spread evenly over all classes, from 0 to below 1.
      shift: images are moved by up to this many whole pixels in each direction; edges are repeated. 0: off.
      seed: of the first parameters, the order of the images and the shifts.
    """

    epochs: int = 100
    batch_size: int = 100
    learning_rate: float = 1e-3
    warmup: int = 5
    weight_decay: float = 0.05
    label_smoothing: float = 0.0
    shift: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Rejects settings that mean nothing."""
        for name, least in (("epochs", 1), ("batch_size", 1), ("warmup", 0), ("shift", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"train.{name} must be at least {least}, not {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise UserError(f"train.learning_rate must be positive, not {self.learning_rate}")
        if not self.weight_decay >= 0:
            raise UserError(f"train.weight_decay must not be negative, not {self.weight_decay}")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"train.label_smoothing must be from 0 to below 1, not {self.label_smoothing}")
        if self.warmup >= self.epochs:
            raise UserError(
                f"train.warmup ({self.warmup} epochs) must be shorter than train.epochs ({self.epochs})"
            )


@dataclass(frozen=True)
class TrainExperiment:
    """A model that is trained from scratch, and its images.

    Attributes:
      model: a name of the registry.
      train_data: labelled images to learn from: folder (`<class>/<file>`), `.npz` file or `digits:train`.
      test_data: the same for the images that measure the accuracy. Nothing is learnt or selected on them.
      out: the `.safetensors` file to write.
      class_index: for folders, the file that lists the classes, as in `DataConfig`.
      num_classes: the classifier's number of classes; None: that of the registry's model.
      train: the settings of the training.
    """

    model: str
    train_data: str
    test_data: str
    out: str
    class_index: str | None = None
    num_classes: int | None = None
    train: TrainConfig = field(default_factory=TrainConfig)


class Labelled(NamedTuple):
    """Images and their classes."""

    pixels: np.ndarray  # uint8 [B, height, width, channels]
    labels: np.ndarray  # integers [B] from 0 to C - 1


class Epoch(NamedTuple):
    """What one epoch did."""

    number: int  # from 1
    loss: float  # mean over the epoch's steps, on the moved images
    accuracy: float  # share of the epoch's images that were right when they were seen


class _State(NamedTuple):
    network: Network
    optimizer: optax.OptState


def train(
    network: Network,
    images: Labelled,
    config: TrainConfig,
    *,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[Network, list[Epoch]]:
    """Trains all parameters. The same arguments give the same result on the same machine.

    Args:
      network: with the first parameters.
      images: all of them fit in memory.
      config: settings.
      on_epoch: called after every epoch.

    Returns:
      The network after the last epoch, and the history.

    Raises:
      UserError: there are fewer images than a batch, a label is no class, or the loss is no longer finite.
    """
    _check_labels(network, images, config)
    steps = len(images.pixels) // config.batch_size
    settings = replace(config, seed=0)  # the seed is traced: other seeds run the same program
    state = _State(network, jax.jit(_optimizer(settings, network, steps).init)(network.params))
    images = jax.tree.map(jnp.asarray, images)  # on the device once, not in every epoch
    history: list[Epoch] = []
    for number in range(1, config.epochs + 1):
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        state, (loss, accuracy) = _epoch(settings, state, images, key)
        history.append(Epoch(number, float(loss), float(accuracy)))
        if not np.isfinite(history[-1].loss):
            raise UserError(
                f"the loss became {history[-1].loss} in epoch {number}: lower train.learning_rate"
            )
        on_epoch(history[-1])
    return state.network, history


def shift_images(images: Array, key: Array, shift: int) -> Array:
    """Moves each image [B, height, width, channels] by up to `shift` whole pixels. Edges are repeated."""
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * shift + 1)

    def crop(image: Array, offset: Array) -> Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, offsets)


@partial(jax.jit, static_argnames=("config",))
def _epoch(
    config: TrainConfig, state: _State, images: Labelled, key: Array
) -> tuple[_State, tuple[Array, Array]]:
    """All steps of one epoch: the new state, mean loss and accuracy."""
    pixels, labels = jnp.asarray(images.pixels), jnp.asarray(images.labels)
    steps = pixels.shape[0] // config.batch_size
    optimizer = _optimizer(config, state.network, steps)
    order_key, shift_key = jax.random.split(key)
    order = jax.random.permutation(order_key, pixels.shape[0])[: steps * config.batch_size]

    def loss_fn(params: Params, x: Array, y: Array) -> tuple[Array, Array]:
        logits = state.network.apply(params, x)
        targets = optax.smooth_labels(jax.nn.one_hot(y, logits.shape[-1]), config.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean(), (logits.argmax(-1) == y).mean()

    def step(state: _State, batch: tuple[Array, Array]) -> tuple[_State, tuple[Array, Array]]:
        (rows, step_key), params = batch, state.network.params
        x = shift_images(pixels[rows], step_key, config.shift)
        (loss, accuracy), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params, x, labels[rows])
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, params)
        network = replace(state.network, params=optax.apply_updates(params, updates))
        return _State(network, optimizer_state), (loss, accuracy)

    rows = order.reshape(steps, config.batch_size)
    state, records = jax.lax.scan(step, state, (rows, jax.random.split(shift_key, steps)))
    return state, jax.tree.map(jnp.mean, records)


def _optimizer(config: TrainConfig, network: Network, steps: int) -> optax.GradientTransformation:
    """AdamW. Weight decay acts on the leaves that quantization would call weights."""
    sites = network.sites
    decayed = unflatten({name: name in sites and sites[name].is_weight for name in flatten(network.params)})
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup * steps, config.epochs * steps
    )
    adamw = optax.adamw(schedule, weight_decay=config.weight_decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(CLIP_NORM), adamw)


def _check_labels(network: Network, images: Labelled, config: TrainConfig) -> None:
    count, labels, classes = len(images.pixels), images.labels, network.num_classes
    if count < config.batch_size:
        raise UserError(f"train.batch_size is {config.batch_size}, but there are only {count} images")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise UserError(
            f"label {wrong[0]} is outside the network's {classes} classes (0 to {classes - 1}): "
            "set num_classes to the number of classes of the data"
        )
