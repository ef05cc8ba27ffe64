"""Converts between the arrays of a checkpoint and a parameter tree, by tables of names.

A `Layout` says for one kind of file which keys hold each leaf of the tree, and in which form. The keys and
shapes that a model expects follow from this table, and so do reading and writing. A family of models adds
tables, not code.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Params

Weights = dict[str, np.ndarray]  # a file's arrays by key
Shapes = Mapping[str, tuple[int, ...]]  # leaf -> shape in the parameter tree


class Form(NamedTuple):
    """How one array lies in a file: `read` turns it into ours, `write` is the inverse."""

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


# Names that torch.compile, FSDP and activation checkpointing put anywhere into a key.
WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

SAME = Form(lambda a: a, lambda a: a)
LINEAR = Form(np.transpose, np.transpose)  # [out, in] <-> [in, out]
CONV = Form(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))  # OIHW <-> HWIO


class Rule(NamedTuple):
    """The keys of a leaf. Several keys are joined on the last axis of the leaf.

    A `{}` in a key stands for the number of a block, counted from `first` in steps of `step`. The leaf then
    stacks these arrays on a leading L axis.
    """

    keys: tuple[str, ...]
    form: Form = SAME
    first: int = 0
    step: int = 1

    @property
    def stacked(self) -> bool:
        """Whether the leaf has an L axis."""
        return "{}" in self.keys[0]

    def key(self, template: str, index: int) -> str:
        """One of the keys for the block at `index` of the L axis."""
        return template.format(self.first + self.step * index)


@dataclass(frozen=True)
class Layout:
    """One kind of file for one family of models.

    - `rules(config)` is the table: leaf name -> `Rule`.
    - `probe` is the beginning of a key that only such files have.
    - `rename` brings a file's key to the form of the table (unifies variants of the names).
    - The network needs no key that begins with one of `ignored`.
    - The length of the leaf `classes` is the file's number of classes.
    - `adapt(config, weights)` is the config with what the keys say of the network.
    """

    name: str
    probe: str
    rules: Callable[[Any], dict[str, Rule]]
    rename: Callable[[str], str] = field(default=lambda key: key)
    ignored: tuple[str, ...] = ()
    classes: str = "head/bias"
    adapt: Callable[[Any, "Weights"], Any] = field(default=lambda config, weights: config)


class Mismatch(NamedTuple):
    """Why a file does not fit a model: missing keys, extra keys, and `key: shapes` in words."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    shapes: tuple[str, ...]


class Found(NamedTuple):
    """A file's layout, its arrays under that layout's keys, and the prefix that was dropped from its keys."""

    layout: Layout
    weights: Weights
    prefix: str


def detect(layouts: tuple[Layout, ...], config: Any, weights: Weights) -> Found | None:
    """The first layout whose probe matches the keys, whatever wrappers have put before them.

    Args:
        layouts: of a family.
        config: of one of its networks.
        weights: of a file, by its own keys.
    """
    unwrapped = {WRAPPERS.sub("", key): array for key, array in weights.items()}
    for layout in layouts:
        prefix = common_prefix(layout, config, unwrapped)
        renamed: Weights = {}
        for key, array in unwrapped.items():
            new = layout.rename(_without(prefix, key))
            renamed[key if new in renamed else new] = array
        if any(key.startswith(layout.probe) for key in renamed):
            return Found(
                layout, {k: v for k, v in renamed.items() if not k.startswith(layout.ignored)}, prefix
            )
    return None


def common_prefix(layout: Layout, config: Any, keys: Iterable[str]) -> str:
    """What most keys have before the name that the layout knows them by, such as `module.`; often nothing."""
    needed = {rule.key(key, 0) for rule in layout.rules(config).values() for key in rule.keys}
    prefixes = Counter(prefix for key in keys if (prefix := _prefix(key, needed, layout.rename)) is not None)
    return min(prefixes, key=lambda prefix: (-prefixes[prefix], len(prefix)), default="")


def _prefix(key: str, needed: set[str], rename: Callable[[str], str]) -> str | None:
    """The shortest beginning of a key after which comes a name that is needed. None: there is none."""
    ends = [0, *(match.end() for match in re.finditer(r"[./]", key))]
    return next((key[:end] for end in ends if rename(key[end:]) in needed), None)


def _without(prefix: str, key: str) -> str:
    """The key without the prefix, or without as many parts of the prefix as it begins with.

    A classifier often stands outside of the module that was wrapped: `model.vit.` and `model.classifier`.
    """
    for part in re.findall(r"[^./]+[./]", prefix):
        if not key.startswith(part):
            break
        key = key[len(part) :]
    return key


def num_classes(layout: Layout, config: Any, weights: Weights) -> int | None:
    """The number of classes of the file's classifier, or None if it has no classifier."""
    bias = weights.get(layout.rules(config)[layout.classes].keys[0])
    return None if bias is None or bias.ndim != 1 else bias.shape[0]


def write(layout: Layout, config: Any, params: Params) -> Weights:
    """The arrays of the parameter tree in the form of this layout, in C order."""
    leaves = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    # safetensors writes wrong data for arrays that are not C-contiguous
    return {key: np.ascontiguousarray(array) for key, array in _scatter(layout.rules(config), leaves)}


def file_shapes(layout: Layout, config: Any, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The keys and shapes that a file of this layout has; nothing is allocated."""
    leaves = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    return {key: array.shape for key, array in _scatter(layout.rules(config), leaves)}


def compare(layout: Layout, config: Any, shapes: Shapes, weights: Weights) -> Mismatch:
    """The differences between the file and a model with these shapes. All are empty if the file fits."""
    needed = file_shapes(layout, config, shapes)
    wrong = (
        f"{key} has shape {list(weights[key].shape)} where {list(shape)} is needed"
        for key, shape in needed.items()
        if key in weights and weights[key].shape != shape
    )
    missing = tuple(key for key in needed if key not in weights)
    return Mismatch(missing, tuple(key for key in weights if key not in needed), tuple(wrong))


def read(layout: Layout, config: Any, shapes: Shapes, weights: Weights) -> Params:
    """The parameter tree, float32, of a file for which `compare` found nothing.

    Raises:
        UserError: an array is not of floating-point type, or holds NaN or infinity; with its key.
    """
    leaves: dict[str, np.ndarray] = {}
    for name, rule in layout.rules(config).items():
        members = [
            np.concatenate([rule.form.read(_checked(rule.key(k, index), weights)) for k in rule.keys], -1)
            for index in range(shapes[name][0] if rule.stacked else 1)
        ]
        leaves[name] = np.stack(members) if rule.stacked else members[0]
    return unflatten(leaves)


def _scatter(rules: dict[str, Rule], leaves: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Every (key, array in the file's form) of the leaves."""
    for name, rule in rules.items():
        for index, member in enumerate(leaves[name] if rule.stacked else [leaves[name]]):
            parts = np.split(member, len(rule.keys), axis=-1)
            for key, part in zip(rule.keys, parts, strict=True):
                yield rule.key(key, index), rule.form.write(part)


def _checked(key: str, weights: Weights) -> np.ndarray:
    """One of the file's arrays as float32."""
    array = weights[key]
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{key} is of type {array.dtype}, not a floating-point type: these are not weights")
    converted = array.astype(np.float32, copy=False)
    if not np.isfinite(converted).all():
        raise UserError(f"{key} holds NaN or infinite values: the checkpoint is damaged")
    return converted
