"""A quantized network as a folder: one JSON file that says what it is, and arrays beside it.

- `quantized.json`: the network's name, sizes, preprocessing and precision, and how each site is quantized.
- `params.safetensors`: the parameters that are quantized.
- `qparams.safetensors`: the quantizers' numbers.
- `float.safetensors`: the parameters of the float network, if calibration changed parameters.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from evolq_jax.errors import UserError
from evolq_jax.json_text import parse_object
from evolq_jax.named import find, name_of
from evolq_jax.network.network import Network
from evolq_jax.network.parts import ModelParts
from evolq_jax.paths import user_path
from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.observers.base import Observer
from evolq_jax.quant.qparams import SiteQParams
from evolq_jax.quant.quantizers import QUANTIZERS
from evolq_jax.quant.quantizers.base import Quantizer
from evolq_jax.quant.spec import QuantSpec, Specs
from evolq_jax.quantized.description import FIELDS, converter, describe_network, find_network, structured
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Params
from evolq_jax.version import __version__

DESCRIPTION, PARAMS, FLOAT, QPARAMS = (
    "quantized.json",
    "params.safetensors",
    "float.safetensors",
    "qparams.safetensors",
)
FORMAT = 1

# Fields of a spec that hold things with names.
NAMED: Mapping[str, tuple[type, Mapping[str, Any]]] = {
    "quantizer": (Quantizer, QUANTIZERS),
    "observer": (Observer, OBSERVERS),
}


def _is_named(hint: Any) -> bool:
    return isinstance(hint, type) and any(issubclass(hint, kind) for kind, _ in NAMED.values())


converter.register_unstructure_hook_func(_is_named, name_of)
converter.register_structure_hook_func(_is_named, lambda found, _: found)


def save(quantized: QuantizedNetwork, path: str | Path) -> None:
    """Writes the network into a new folder, in one step: it is complete or not there.

    Raises:
      UserError: there is something at that path already, or it cannot be written.
    """
    path = user_path(path, "folder")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"'{path}' exists already: name another folder to save in")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        (partial / DESCRIPTION).write_text(json.dumps(_description(quantized), indent=2) + "\n", "utf-8")
        _save_arrays(partial / PARAMS, flatten(quantized.params))
        if quantized.params is not quantized.network.params:
            _save_arrays(partial / FLOAT, flatten(quantized.network.params))
        fields = {
            f"{site}.{field}": leaf
            for site, numbers in quantized.qparams.items()
            for field, leaf in numbers._asdict().items()
        }
        _save_arrays(partial / QPARAMS, fields)
        if path.exists():
            path.rmdir()
        partial.rename(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write '{path}': {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load(
    path: str | Path, parts: ModelParts | None = None, own: Sequence[Quantizer | Observer] = ()
) -> QuantizedNetwork:
    """Loads a network that `QuantizedNetwork.save` wrote.

    Args:
      path: the folder.
      parts: the functions of a network of your own. Those of the registry are found by name.
      own: quantizers and observers of your own that it was made with.

    Raises:
      UserError: there is no such folder, it is damaged, or it needs `parts` or `own` that are not given.
    """
    path = user_path(path, "folder")
    described = _read_description(path)
    found = find_network(described, parts, path / DESCRIPTION)
    params = _params(_load_arrays(path / PARAMS))
    floats = _params(_load_arrays(path / FLOAT)) if (path / FLOAT).is_file() else params
    network = Network(found.parts, floats, found.preprocessing, found.name, found.config, found.precision)
    specs: Specs = tuple((site, _spec(fields, own, path)) for site, fields in described["specs"].items())
    arrays = _load_arrays(path / QPARAMS)
    try:
        qparams = {
            site: SiteQParams(
                **{field: jax.device_put(arrays[f"{site}.{field}"]) for field in SiteQParams._fields}
            )
            for site in dict.fromkeys(key.rpartition(".")[0] for key in arrays)
        }
    except KeyError as error:
        raise UserError(f"'{path / QPARAMS}' lacks {error}: save the network again") from error
    return QuantizedNetwork(network, params, qparams, specs)


def _description(quantized: QuantizedNetwork) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "evolq_jax": __version__,
        **describe_network(quantized.network),
        "specs": {site: converter.unstructure(spec) for site, spec in quantized.specs},
    }


def _read_description(path: Path) -> dict[str, Any]:
    file = path / DESCRIPTION
    try:
        described = parse_object(file.read_text("utf-8"), f"'{file}'")
        missing = {"format", *FIELDS, "specs"} - set(described)
    except FileNotFoundError as error:
        raise UserError(f"'{path}' holds no saved network: it has no {DESCRIPTION}") from error
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"'{file}' is damaged ({error}): save the network again") from error
    if missing or described["format"] != FORMAT:
        raise UserError(f"'{file}' is damaged or of another version: save the network again")
    return described


def _spec(fields: Mapping[str, Any], own: Sequence[Quantizer | Observer], path: Path) -> QuantSpec:
    """A site's, with the things that it holds by name."""
    found = {}
    for field, (kind, known) in NAMED.items():
        known = {**known, **{thing.name: thing for thing in own if isinstance(thing, kind)}}
        what = f"'{path}' was saved with a {field} that is not there; pass it as load(path, own=(...)):"
        if field in fields:
            found[field] = find(fields[field], known, what)
    return structured({**fields, **found}, QuantSpec, path / DESCRIPTION)


def _params(arrays: Mapping[str, np.ndarray]) -> Params:
    return unflatten({name: jax.device_put(array) for name, array in arrays.items()})


def _save_arrays(file: Path, leaves: Mapping[str, Any]) -> None:
    """Writes arrays. They must be contiguous, or safetensors would write wrong values."""
    save_file({name: np.ascontiguousarray(np.asarray(leaf)) for name, leaf in leaves.items()}, file)


def _load_arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"'{file}' is missing or damaged ({error}): save the network again") from error
