"""Facts of a checkpoint that its arrays do not tell, as the files beside it state them, key by key."""

import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from evolq_jax.errors import UserError
from evolq_jax.json_text import shown
from evolq_jax.typing import Preprocessing

IMAGE_SIZE = "image_size"  # the field that weights of other sizes change
MAX_SIDE = 16384  # pixels along a side of an image
MAX_SIZE = 65536  # of a width, a depth and the like

# What a network has whose config has no field for it.
PLAIN = {
    "class_token": True,
    "registers": 0,
    "positions": "all",
    "relative_positions": False,
    "pre_norm": False,
    "qkv_bias": "full",
    "qk_norm": False,
    "layer_scale": False,
    "pool": "token",
    "norm_pooled": False,
}
GELU_FORMS = ("erf", "tanh", "quick")  # of `models.layers.gelu`
# `act_layer` of timm and `hidden_act` of transformers -> our name of the function
ACTIVATIONS = {
    "gelu": "erf",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_fast": "tanh",
    "gelu_tanh": "tanh",
    "quick_gelu": "quick",
    "quickgelu": "quick",
    "relu": "relu",
    "relu6": "relu6",
    "hard_swish": "hard_swish",
    "hardswish": "hard_swish",
}

_log = logging.getLogger(__name__)


class Fact(NamedTuple):
    """A key of a file that says something of the network.

    Attributes:
      key: its name in the file.
      value: its value there.
      field: of the model's config.
      ours: the value that the field must have.
    """

    key: str
    value: Any
    field: str
    ours: Any


class Option(NamedTuple):
    """What a key of a file means for a model's config.

    Attributes:
      fields: names of the field; families differ, and the first that a config has is meant.
      ours: the field's value for each value of the key. None: the same value.
    """

    fields: tuple[str, ...]
    ours: Mapping[Any, Any] | Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Facts:
    """What the files beside the weights say.

    Attributes:
      where: the file that says most; for messages.
      architecture: timm's name of the network; None: it is not said.
      model: of the network.
      preprocessing: how the checkpoint wants its images, best first. Empty: it is not said.
    """

    where: Path
    architecture: str | None = None
    model: tuple[Fact, ...] = ()
    preprocessing: tuple[Preprocessing, ...] = ()

    def sizes(self, usual: int) -> list[int]:
        """The sizes of images that the files name, best first, and the usual one."""
        named = [fact.ours for fact in self.model if fact.field == IMAGE_SIZE]
        return [*(one.size for one in self.preprocessing), *named, usual]


def facts_of(settings: Mapping[str, Any], options: Mapping[str, Option], config: Any) -> list[Fact]:
    """The facts that these options find among the keys of a file. `null` says nothing.

    Raises:
        UserError: a value is none that we know, or the network has no such field.
    """
    found: list[Fact] = []
    for key, option in options.items():
        value = settings.get(key)
        if value is None:
            continue
        field = next((name for name in option.fields if hasattr(config, name)), option.fields[0])
        if not hasattr(config, field) and field not in PLAIN:
            raise UserError(f"{key} is {shown(value)}, and this network has no {field}")
        found.append(Fact(key, value, field, _ours(key, value, option)))
    return found


def _ours(key: str, value: Any, option: Option) -> Any:
    if option.ours is None:
        return tuple(value) if isinstance(value, list) else value
    if callable(option.ours):
        return option.ours(value)
    if isinstance(value, list | dict) or value not in option.ours:
        known = ", ".join(shown(name) for name in option.ours)
        raise UserError(f"{key} is {shown(value)}, which is not supported (known: {known})")
    return option.ours[value]


def apply_facts(config: Any, facts: tuple[Fact, ...], image_size: int) -> Any:
    """The config with what the facts say. Its own fields are set; what is fixed in a family must agree.

    Args:
        config: of a network.
        facts: of its checkpoint. Those on the image size are passed over.
        image_size: the one to try first.

    Raises:
        UserError: a fact contradicts what is fixed, or the config refuses a value.
    """
    settable = {field.name for field in fields(config)}
    changes: dict[str, Any] = {}
    for fact in facts:
        current = changes.get(fact.field, getattr(config, fact.field, PLAIN.get(fact.field)))
        if fact.field == IMAGE_SIZE or (current == fact.ours and type(current) is type(fact.ours)):
            continue
        unknown_form = fact.field == "gelu_form" and fact.ours not in GELU_FORMS
        if fact.field not in settable or unknown_form or not _same_kind(current, fact.ours):
            raise UserError(
                f"{fact.key} is {shown(fact.value)}, and the network named has {shown(current)}, which "
                "cannot be set"
            )
        changes[fact.field] = fact.ours
    config = replace(config, **changes, image_size=image_size)  # at once: a window may need the size
    _check_heads(config)
    return config


def _check_heads(config: Any) -> None:
    """Refuses numbers of heads that do not divide the width. No shape in a file would tell."""
    heads = getattr(config, "num_heads", ())
    if hasattr(config, "width"):
        heads, widths = (heads,), (config.width,)
    else:
        widths = tuple(getattr(config, "first_width", 0) * 2**stage for stage in range(len(heads)))
    for number, width in zip(heads, widths, strict=True):
        if width % number:
            raise UserError(f"num_heads is {number}, which does not divide the width {width}")


def _same_kind(one: Any, other: Any) -> bool:
    """Whether a field that holds `one` can hold `other`: the same type, positive where it is a number."""
    if isinstance(one, tuple):
        alike = isinstance(other, tuple) and len(other) == len(one)
        return alike and all(_same_kind(one[0], item) for item in other)
    if isinstance(one, float) and isinstance(other, int | float) and not isinstance(other, bool):
        return math.isfinite(other) and other > 0
    if type(one) is int and type(other) is int:
        return 0 < other <= MAX_SIZE
    return type(one) is type(other)


def check_plain(settings: Mapping[str, Any], plain: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuses keys with values under which the network or the pixels would be others.

    Args:
        settings: of a file.
        plain: by key, the values that change nothing. `null` never does, and `false` where `true` is not
            among them.

    Raises:
        UserError: a key has another value.
    """
    for key, harmless in plain.items():
        value = settings.get(key)
        off = value is False and True not in harmless
        if value is not None and not off and value not in harmless:
            usual = f" (supported: {', '.join(map(shown, harmless))})" if harmless else ""
            raise UserError(f"{key} is {shown(value)}, which is not supported{usual}")


def warn_of_unknown(where: Path, settings: Mapping[str, Any], known: Collection[str]) -> None:
    """Logs one line with the keys that nobody knows. Keys without a value say nothing."""
    unknown = [key for key, value in settings.items() if key not in known and value is not None]
    if unknown:
        named = ", ".join(f"{key[:40]} ({shown(settings[key])})" for key in unknown[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        _log.warning("%s: unknown, so not applied: %s%s", where, named, more)


def numbers(key: str, value: Any) -> tuple[float, ...]:
    """A list of finite numbers.

    Raises:
        UserError: it is none.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{key} is {shown(value)}, not a list of numbers")
    return tuple(number(key, item) for item in value)


def number(key: str, value: Any) -> float:
    """A finite number.

    Raises:
        UserError: it is none.
    """
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or abs(value) > 1e30 or not math.isfinite(value):
        raise UserError(f"{key} is {shown(value)}, not a finite number")
    return float(value)


def side(key: str, value: Any) -> int:
    """A number of pixels along a side.

    Raises:
        UserError: it is no whole number from 1 to `MAX_SIDE`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
        raise UserError(f"{key} is {shown(value)}, not a number of pixels from 1 to {MAX_SIDE}")
    return value


def square(key: str, value: Any) -> int:
    """The side of a square, given as one number or as height and width.

    Raises:
        UserError: it is no square.
    """
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if isinstance(value, list):
        raise UserError(f"{key} is {shown(value)}: only square images are supported")
    return side(key, value)
