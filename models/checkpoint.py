"""Checkpoint files: reading other projects' weights into our parameter trees, and writing our own."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from evolq_jax.errors import UserError, suggestion
from evolq_jax.models.batch_norm import fold
from evolq_jax.models.convert import Weights, read, write
from evolq_jax.models.reading.facts import Facts
from evolq_jax.models.reading.match import match, some
from evolq_jax.models.reading.sidecar import apply_sidecars, read_sidecars
from evolq_jax.models.reading.tags import todays_name, warn_of_tag
from evolq_jax.models.reading.weight_files import WeightFiles, find_weights, read_arrays
from evolq_jax.models.registry import REGISTRY, Entry, get_entry, param_shapes
from evolq_jax.network.network import Network
from evolq_jax.paths import user_path
from evolq_jax.trees import flatten
from evolq_jax.typing import Params, Preprocessing

_log = logging.getLogger(__name__)


def load_checkpoint(
    name: str,
    path: str | Path,
    *,
    fold_batch_norm: bool = True,
    preprocessing: Mapping[str, Any] | None = None,
) -> Network:
    """The model `name` of the registry with the weights in `path`.

    The layout (timm, transformers, AugReg) is recognised by the keys, whatever prefix they have. The number
    of classes is the file's. The image size is the one that is asked for or stated beside the weights, if the
    shapes in the file allow it.

    Args:
        name: a name of the registry, with or without timm's `.tag`.
        path: a `.safetensors` or `.npz` file, the index of shards, a folder with one of these, or
            `hf-hub:owner/name`. The `config.json` and `preprocessor_config.json` beside them are read.
        fold_batch_norm: fold BatchNorms into the layers beside them (`models.batch_norm`); quantization needs
            this. False: keep them as in the file; `save_params` can write them again.
        preprocessing: fields of `Preprocessing` that replace the checkpoint's.

    Raises:
        UserError: the name is unknown; the file is missing, damaged, of no known layout or of another model;
            it lacks keys, has extra keys, or holds NaN or infinity; or a file beside it says what we cannot
            follow.
    """
    entry, changes = get_entry(name), _checked(preprocessing or {})
    files = find_weights(path)
    facts = read_sidecars(files.folder, entry.config, entry.preprocessing)
    _check_architecture(facts, entry)
    sizes = facts.sizes(entry.config.image_size)
    wanted = [changes["size"]] if "size" in changes else sizes
    params, config = _read(entry, apply_sidecars(facts, entry.config, sizes[0]), files, wanted)
    if "size" in changes and config.image_size != changes["size"]:
        raise UserError(
            f"preprocessing.crop is {changes['size']}, but {files.name} holds weights for images of "
            f"{config.image_size} pixels: leave it out"
        )
    if config.image_size != wanted[0]:
        _log.warning(
            "%s: by their shapes the weights are for images of %d pixels, not %d",
            files.name,
            config.image_size,
            wanted[0],
        )
    prepared = _preprocessing(facts, entry, config, changes)
    if not facts.preprocessing and not changes:
        warn_of_tag(name, files.name, prepared)
    params = jax.device_put(fold(params) if fold_batch_norm else params)
    return Network(entry.family.make(config), params, prepared, name, config)


def _read(entry: Entry, config: Any, files: WeightFiles, sizes: Sequence[int]) -> tuple[Params, Any]:
    """The parameters in the files, and the config of the network that they fit. Files' arrays end here."""
    arrays = read_arrays(files)
    try:
        matched = match(entry, config, arrays, sizes)
        params = read(matched.found.layout, matched.config, matched.shapes, matched.found.weights)
    except UserError as error:
        raise UserError(f"{files.name}: {error}") from None
    if matched.found.prefix:
        _log.warning("%s: the prefix '%s' was dropped from the keys", files.name, matched.found.prefix)
    return params, matched.config


def _check_architecture(facts: Facts, entry: Entry) -> None:
    """Refuses weights of another network. A name that differs in the image size alone is the same network."""
    named = todays_name(facts.architecture or entry.name)
    other = REGISTRY.get(named)
    if named == entry.name or (other is not None and _without_size(other) == _without_size(entry)):
        return
    remedy = "give that name" if other is not None else "evolq_jax does not have that network"
    raise UserError(
        f"{facts.where}: the weights beside it are '{named}', not '{entry.name}': {remedy}, or move the file "
        "away if it belongs to other weights"
    )


def _without_size(entry: Entry) -> tuple[Any, dict[str, Any]]:
    sizes = ("image_size", "num_classes")
    return entry.family, {key: value for key, value in vars(entry.config).items() if key not in sizes}


def _preprocessing(facts: Facts, entry: Entry, config: Any, changes: Mapping[str, Any]) -> Preprocessing:
    """How images are prepared for the network, at the size that its weights are for."""
    size, stated = config.image_size, facts.preprocessing or (entry.preprocessing,)
    at_size = [one for one in stated if one.size == size]
    best = at_size[0] if at_size else replace(stated[0], size=size, resize=stated[0].resize_for(size))
    prepared = replace(best, **{key: _for_channels(key, value, config) for key, value in changes.items()})
    if not len(prepared.mean) == len(prepared.std) == config.channels:
        raise UserError(
            f"preprocessing.mean and preprocessing.std must have {config.channels} numbers, one per channel"
        )
    return prepared


def _checked(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Preprocessing` as given in Python, with tuples of numbers."""
    known = [field.name for field in fields(Preprocessing)]
    for name in changes:
        if name not in known:
            raise UserError(
                f"preprocessing has no '{name}'{suggestion(name, known)} (known: {', '.join(known)})"
            )
    return {name: tuple(value) if name in ("mean", "std") else value for name, value in changes.items()}


def _for_channels(field: str, value: Any, config: Any) -> Any:
    """One mean or deviation stands for all channels."""
    return value * config.channels if field in ("mean", "std") and len(value) == 1 else value


def save_params(path: str | Path, params: Params, metadata: Mapping[str, str]) -> None:
    """Writes a parameter tree as a `.safetensors` file with timm's key names. `load_checkpoint` can read it.

    The file is read back and compared. Only then it takes its place, in one step.

    Args:
        path: the file to write; its folder must exist.
        params: the tree of a registry model, with any number of classes, and with BatchNorms not folded.
        metadata: kept in the file's header; `metadata["model"]` is the model's name in the registry.

    Raises:
        UserError: the model is unknown, the parameters do not fit it, or the file cannot be written.
    """
    path = user_path(path, "weights")
    if "model" not in metadata:
        raise UserError(f"{path}: the metadata must give the name of the model under 'model'")
    entry = get_entry(metadata["model"])
    layout, leaves = entry.family.layouts[0], flatten(params)
    classes = leaves[layout.classes].shape[0] if layout.classes in leaves else entry.config.num_classes
    shapes = param_shapes(entry.family, replace(entry.config, num_classes=classes))
    wrong = [
        leaf for leaf in {**shapes, **leaves} if leaf not in leaves or leaves[leaf].shape != shapes.get(leaf)
    ]
    if wrong:
        raise UserError(f"{path}: not parameters of {entry.name}: {some(wrong)} missing, extra or misshapen")
    _save_checked(path, write(layout, entry.config, params), dict(metadata))


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _save_checked(path: Path, weights: Weights, metadata: dict[str, str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(weights, temporary, metadata)
        temporary.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner can read
        back = load_file(temporary)
        if not all(np.array_equal(back[key], array, equal_nan=True) for key, array in weights.items()):
            raise UserError(f"{path}: the file does not read back as it was written: check the disk")
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be written ({error})") from None
    finally:
        temporary.unlink(missing_ok=True)
