"""Checkpoint files: reading other projects' weights into our parameter trees, and writing our own."""

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from evolq_jax.errors import UserError
from evolq_jax.models import hub
from evolq_jax.models.batch_norm import fold
from evolq_jax.models.convert import Mismatch, Weights, compare, detect, num_classes, read, write
from evolq_jax.models.registry import REGISTRY, Entry, get_entry, param_shapes
from evolq_jax.models.sidecar import apply_sidecars
from evolq_jax.network.network import Network
from evolq_jax.paths import user_path
from evolq_jax.trees import flatten
from evolq_jax.typing import Params

SUFFIXES = (".safetensors", ".npz")


def load_checkpoint(name: str, path: str | Path, *, fold_batch_norm: bool = True) -> Network:
    """The model `name` of the registry with the weights in `path`.

    Args:
        name: a name of the registry, with or without timm's `.tag`.
        path: a `.safetensors` or `.npz` file, a folder with one (and the `config.json` of timm or
            transformers, which is also looked for beside a file), or `hf-hub:owner/name`.
        fold_batch_norm: fold BatchNorms into the layers beside them (`models.batch_norm`); quantization needs
            this. False: keep them as in the file; `save_params` can write them again.

    Returns:
        The model. The layout (timm, transformers, AugReg) is recognised by the keys; the number of classes
        is the file's.

    Raises:
        UserError: the name is unknown; the file is missing, damaged, of no known layout or of another model;
            it lacks keys, has extra keys, or holds NaN or infinity.
    """
    entry = get_entry(name)
    file = find_weights(path)
    config, preprocessing = apply_sidecars(file.parent, entry.name, entry.config, entry.preprocessing)
    arrays = read_arrays(file)
    found = detect(entry.family.layouts, arrays)
    if found is None:
        raise UserError(f"{file}: {_unknown_layout(entry, arrays)}")
    layout, weights = found
    config = replace(config, num_classes=num_classes(layout, config, weights) or config.num_classes)
    shapes = param_shapes(entry.family, config)
    mismatch = compare(layout, config, shapes, weights)
    if any(mismatch):
        raise UserError(f"{file}: {_explain(entry, mismatch, arrays)}")
    try:
        params = read(layout, config, shapes, weights)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    params = jax.tree.map(jnp.asarray, fold(params) if fold_batch_norm else params)
    return Network(entry.family.make(config), params, preprocessing, name, config)


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
        raise UserError(f"{path}: not parameters of {entry.name}: {_some(wrong)} missing, extra or misshapen")
    _save_checked(path, write(layout, entry.config, params), dict(metadata))


def find_weights(path: str | Path) -> Path:
    """The weights file that `path` names: a file, the one in a folder, or one fetched from the hub.

    Raises:
        UserError: there is no file, or a folder has several and none is `model.safetensors`.
    """
    file = hub.download(str(path)) if hub.is_hub_path(str(path)) else user_path(path, "weights")
    if file.is_dir():
        candidates = sorted(p for p in file.iterdir() if p.suffix in SUFFIXES)
        named = [p for p in candidates if p.name == "model.safetensors"] or candidates
        if len(named) != 1:
            held = (
                f"several weight files ({_some([p.name for p in named])}): name one"
                if named
                else "no .safetensors or .npz file"
            )
            raise UserError(f"{file}: the folder holds {held}")
        return named[0]
    if not file.is_file():
        raise UserError(f"{file}: no such file or folder (hub repositories are written hf-hub:owner/name)")
    return file


def read_arrays(file: Path) -> Weights:
    """All arrays of a `.safetensors` or `.npz` file, by key. Nothing is unpickled.

    Raises:
        UserError: the file is of another kind, or damaged.
    """
    if file.suffix not in SUFFIXES:
        raise UserError(
            f"{file}: weights are read from {' or '.join(SUFFIXES)}; convert it (pickled PyTorch files can "
            "run code when opened, so they are not read)"
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        # opened here, since np.load leaves its own handle open when the archive is damaged
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (SafetensorError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise UserError(
            f"{file}: damaged, truncated or not {file.suffix} ({error}): download or copy it again"
        ) from None


def _fitting(arrays: Weights) -> list[str]:
    """The models that have the keys and shapes of the file, whatever their number of classes."""
    return [entry.name for entry in REGISTRY.values() if _fits(entry, arrays)]


def _fits(entry: Entry, arrays: Weights) -> bool:
    found = detect(entry.family.layouts, arrays)
    if found is None:
        return False
    layout, weights = found
    classes = num_classes(layout, entry.config, weights) or entry.config.num_classes
    config = replace(entry.config, num_classes=classes)
    return not any(compare(layout, config, param_shapes(entry.family, config), weights))


def _unknown_layout(entry: Entry, arrays: Weights) -> str:
    names = _fitting(arrays)
    if names:
        return f"not weights of {entry.name}; they fit {_some(names)}: give that name"
    known = ", ".join(layout.name for layout in entry.family.layouts)
    held = f"{len(arrays)} arrays ({_some(sorted(arrays))})" if arrays else "no arrays"
    return f"no layout that {entry.name} is read from ({known}): it holds {held}"


def _explain(entry: Entry, mismatch: Mismatch, arrays: Weights) -> str:
    """Says what does not fit, and which other model of the registry would fit."""
    parts = [_some(mismatch.shapes, 1)] if mismatch.shapes else []
    if mismatch.missing:
        parts.append(f"lacks {len(mismatch.missing)} keys: {_some(mismatch.missing)}")
    if mismatch.extra:
        parts.append(f"has {len(mismatch.extra)} keys beside: {_some(mismatch.extra)}")
    names = _fitting(arrays)
    remedy = f"it fits {_some(names)}: give that name" if names else "no model of the registry fits it"
    return f"not weights of {entry.name}: {'; '.join(parts)}; {remedy}"


def _some(items: Sequence[str], at_most: int = 3) -> str:
    rest = len(items) - at_most
    return ", ".join(items[:at_most]) + (f" and {rest} more" if rest > 0 else "")


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
