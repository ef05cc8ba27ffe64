"""The files that weights lie in, and their arrays. Nothing is unpickled."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import load_file

from evolq_jax.errors import UserError
from evolq_jax.json_text import read_object
from evolq_jax.models.reading import hub
from evolq_jax.models.reading.npz_file import read_npz
from evolq_jax.paths import user_path

SUFFIXES = (".safetensors", ".npz")
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl", ".pickle")
INDEX = ".safetensors.index.json"  # the end of the name of a file that says which shard holds which array
FLOAT8 = {"F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2}  # of safetensors; numpy lacks them

# Run where PyTorch is: it takes the usual place of the weights in a training checkpoint, and its tensors.
CONVERT = (
    "import sys, torch; from safetensors.torch import save_file; "
    'held = torch.load(sys.argv[1], map_location="cpu", weights_only=True); '
    'held = next((held[k] for k in ("state_dict", "model", "model_state_dict") if k in held), held); '
    "save_file({k: v.clone().contiguous() for k, v in held.items() if torch.is_tensor(v)}, sys.argv[2])"
)


class WeightFiles(NamedTuple):
    """Where the arrays of a checkpoint lie: one file, or the shards that an index lists.

    Attributes:
      name: the file that stands for all, for messages: the index of shards.
      shards: the name of each array's file, by key. None: all are in `name`.
    """

    name: Path
    shards: dict[str, str] | None = None

    @property
    def folder(self) -> Path:
        """Where the files that describe the checkpoint lie."""
        return self.name.parent


def find_weights(path: str | Path) -> WeightFiles:
    """The weights that `path` names: a file, the index of shards, those in a folder, or fetched from the hub.

    Raises:
        UserError: there is no file, a folder has several and none is `model.safetensors`, or a shard is
            missing.
    """
    from_hub = hub.is_hub_path(str(path))
    try:
        file = hub.download(str(path)) if from_hub else user_path(path, "weights")
        if file.is_dir():
            file = _in_folder(file, str(path) if from_hub else str(file))
        elif not file.is_file():
            raise UserError(
                f"{file}: no such file or folder (hub repositories are written hf-hub:owner/name)"
            )
    except (OSError, RuntimeError) as error:  # a name too long, a folder that is closed, an unknown `~user`
        raise UserError(f"{path}: cannot be opened ({getattr(error, 'strerror', None) or error})") from None
    return WeightFiles(file, _shards(file)) if file.name.endswith(INDEX) else WeightFiles(file)


def read_arrays(files: WeightFiles) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint by key.

    Raises:
        UserError: a file is of another kind or damaged, or lacks arrays that the index promises.
    """
    if files.shards is None:
        return _read_file(files.name)
    arrays: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(files.shards.values()):
        shard = _read_file(files.folder / name)
        promised = [key for key, holder in files.shards.items() if holder == name]
        lacking = [key for key in promised if key not in shard]
        if lacking:
            raise UserError(
                f"{files.folder / name}: lacks {', '.join(lacking[:3])}, which {files.name.name} says it "
                "holds: download both again"
            )
        arrays |= {key: shard[key] for key in promised}
    return arrays


def _in_folder(folder: Path, where: str) -> Path:
    """The file of a folder that holds its weights, or lists their shards."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    indices = [file for file in files if file.name.endswith(INDEX)]
    candidates = [file for file in files if file.suffix in SUFFIXES]
    for choice in ([file for file in candidates if file.name == "model.safetensors"], indices, candidates):
        if len(choice) == 1:
            return choice[0]
        if choice:
            names = ", ".join(file.name for file in choice[:3]) + (", ..." if len(choice) > 3 else "")
            raise UserError(f"{where}: the folder holds several weight files ({names}): name one")
    pickled = [file for file in files if file.suffix in PICKLED]
    held = f"; {pickled[0].name} {_conversion(pickled[0])}" if pickled else ""
    raise UserError(f"{where}: the folder holds no {' or '.join(SUFFIXES)} file{held}")


def _shards(index: Path) -> dict[str, str]:
    """The name of each array's file. All lie beside the index."""
    listed = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise UserError(f"{index}: lists no shards under 'weight_map': download it again")
    for name in dict.fromkeys(map(str, listed.values())):
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise UserError(f"{index}: '{name}' is no .safetensors file beside it")
        if not (index.parent / name).is_file():
            raise UserError(f"{index}: the shard '{name}' is missing: download it into the same folder")
    return {key: str(name) for key, name in listed.items()}


def _read_file(file: Path) -> dict[str, np.ndarray]:
    """All arrays of a `.safetensors` or `.npz` file, by key."""
    if file.suffix in PICKLED:
        raise UserError(f"{file}: {_conversion(file)}")
    if file.suffix not in SUFFIXES:
        raise UserError(f"{file}: weights are read from {' or '.join(SUFFIXES)}, not from '{file.suffix}'")
    try:
        return read_npz(file) if file.suffix == ".npz" else _read_safetensors(file)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(
            f"{file}: damaged, truncated or not {file.suffix} ({error}): download or copy it again"
        ) from None


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    with safe_open(file, "np") as opened:
        kinds = {opened.get_slice(key).get_dtype() for key in opened.keys()}  # noqa: SIM118, it is no dict
    if not kinds & FLOAT8.keys():
        try:
            return load_file(file)
        except (AttributeError, KeyError, TypeError) as error:  # a type that numpy does not have
            raise ValueError(f"arrays of types {', '.join(sorted(kinds))}: {error}") from None
    return dict(_float8_arrays(file))


def _float8_arrays(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a file with types that safetensors has no numpy type for."""
    types = FLOAT8 | {"BF16": jnp.bfloat16, "F16": np.float16, "F32": np.float32, "F64": np.float64}
    for key, view in deserialize(file.read_bytes()):
        if view["dtype"] not in types:
            raise ValueError(f"{key} is of type {view['dtype']}, beside float8 arrays")
        yield key, np.frombuffer(view["data"], types[view["dtype"]]).reshape(view["shape"])


def _conversion(file: Path) -> str:
    """Why a pickled file is not read, and the command that converts it."""
    out = file.with_name(f"{file.name.split('.')[0] or 'model'}.safetensors")
    command = shlex.join(["python", "-c", CONVERT, str(file), str(out)])
    return (
        "is pickled, and pickled PyTorch files can run code when opened, so they are not read. Where PyTorch "
        f"and safetensors are installed, this writes {out.name}: {command}"
    )
