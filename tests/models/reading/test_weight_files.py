"""Files that hold weights: shards, types that numpy lacks, archives that lie, and what to do with pickles."""

import json
import shlex
import struct
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from evolq_jax.errors import UserError
from evolq_jax.models.reading.npz_file import ALWAYS_BYTES
from evolq_jax.models.reading.weight_files import find_weights, read_arrays

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.ones(4, np.float32),
    "c": np.zeros(2, "f"),
}
INDEX = "model.safetensors.index.json"


def write_shards(folder: Path, **changes: Any) -> Path:
    save_file({"a": ARRAYS["a"]}, folder / "model-00001-of-00002.safetensors")
    save_file({key: ARRAYS[key] for key in "bc"}, folder / "model-00002-of-00002.safetensors")
    weight_map = {key: f"model-0000{1 + (key != 'a')}-of-00002.safetensors" for key in ARRAYS} | changes
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 48}, "weight_map": weight_map}))
    return folder / INDEX


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_arrays(find_weights(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_shards_are_read_by_folder_and_by_index(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    for path in (tmp_path, index):
        files = find_weights(path)
        arrays = read_arrays(files)
        assert (files.name, files.folder) == (index, tmp_path)
        assert arrays.keys() == ARRAYS.keys()
        assert all(np.array_equal(arrays[key], array) for key, array in ARRAYS.items())


def test_a_whole_file_comes_before_shards(tmp_path: Path) -> None:
    write_shards(tmp_path)
    save_file({"x": ARRAYS["a"]}, tmp_path / "model.safetensors")
    assert read_arrays(find_weights(tmp_path)).keys() == {"x"}


def test_shards_that_are_missing_elsewhere_or_hold_too_little(tmp_path: Path) -> None:
    index = write_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "the shard 'model-00002-of-00002.safetensors' is missing: download it" in refused(index)
    save_file({"b": ARRAYS["b"]}, tmp_path / "model-00002-of-00002.safetensors")
    assert "lacks c, which model.safetensors.index.json says it holds" in refused(tmp_path)
    for elsewhere in ("../x.safetensors", "/x.safetensors", "a\\x.safetensors", "", "x.bin", 3):
        assert "is no .safetensors file beside it" in refused(write_shards(tmp_path, b=elsewhere))
    for content in ("{}", '{"weight_map": []}', '{"weight_map": {}}'):
        index.write_text(content)
        assert "lists no shards" in refused(index)


@pytest.mark.parametrize(("name", "dtype"), [("F8_E4M3", jnp.float8_e4m3fn), ("F8_E5M2", jnp.float8_e5m2)])
def test_float8_is_read(name: str, dtype: Any, tmp_path: Path) -> None:
    values = {"w": np.array([[1.5, -2], [0.25, 0]], dtype), "b": np.array([1, 3.5], jnp.bfloat16)}
    header, at = {}, 0
    for key, array in values.items():
        kind = name if key == "w" else "BF16"
        header[key] = {"dtype": kind, "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    data = b"".join(array.tobytes() for array in values.values())
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    arrays = read_arrays(find_weights(tmp_path / "w.safetensors"))
    np.testing.assert_array_equal(arrays["w"].astype(np.float32), [[1.5, -2], [0.25, 0]])
    np.testing.assert_array_equal(arrays["b"].astype(np.float32), [1, 3.5])


@pytest.mark.parametrize("kind", ["F4", "F8_E8M0", "F6_E2M3"])
def test_other_types_are_refused_in_a_line(kind: str, tmp_path: Path) -> None:
    text = json.dumps(
        {"w": {"dtype": kind, "shape": [16], "data_offsets": [0, {"F4": 8, "F6_E2M3": 12}.get(kind, 16)]}}
    )
    (tmp_path / "w.safetensors").write_bytes(
        struct.pack("<Q", len(text)) + text.encode() + bytes(16)[: {"F4": 8, "F6_E2M3": 12}.get(kind, 16)]
    )
    assert "w.safetensors: damaged, truncated or not .safetensors" in refused(tmp_path / "w.safetensors")


def test_bfloat16_in_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=np.array([1, 3.5], jnp.bfloat16))
    array = read_arrays(find_weights(tmp_path / "w.npz"))["w"]
    assert array.dtype == jnp.bfloat16
    np.testing.assert_array_equal(array.astype(np.float32), [1, 3.5])


def npy(shape: str, data: bytes = b"", descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("(1000000, 1000000, 750)"), "claims an array of 3000000000000000 bytes and holds 0"),
        (npy("(-1, 4)", bytes(16)), "claims an array"),
        (npy("(9" + "9" * 5000 + ",)"), "x.npy is no array"),
        (npy("(2,)", bytes(8), "'|O'"), "holds Python objects"),
        (npy("(2,)", bytes(12)), "claims an array of 8 bytes and holds 12"),
        (npy("('a',)"), "x.npy is no array"),
        (b"no array", "x.npy is no array"),
        (b"", "x.npy is no array"),
    ],
)
def test_members_that_are_no_arrays(content: bytes, message: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("x.npy", content)
    line = refused(tmp_path / "w.npz")
    assert "w.npz: damaged, truncated or not .npz" in line
    assert message in line


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "w.npz", x=np.zeros(ALWAYS_BYTES // 4 + 1, np.float32))
    monkeypatch.setattr("evolq_jax.models.reading.npz_file._read", lambda *_: pytest.fail("it was unpacked"))
    assert f"its arrays take {ALWAYS_BYTES + 4} bytes unpacked, more than {ALWAYS_BYTES}" in refused(
        tmp_path / "w.npz"
    )


@pytest.mark.parametrize("name", ["model.pth", "it's mine.pt", "a.pth.tar", "$(x).bin", "last.ckpt"])
def test_a_pickle_comes_with_the_command_that_converts_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02")
    for path in (tmp_path / name, tmp_path):
        line = refused(path)
        assert "are not read" in line
        words = shlex.split(line[line.index("python -c") :])
        compile(words[2], "command", "exec")
        out = tmp_path / (name.split(".")[0] + ".safetensors")
        assert words[3:] == [str(tmp_path / name), str(out)]


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"x")
    assert "weights are read from .safetensors or .npz, not from '.h5'" in refused(tmp_path / "w.h5")
    assert "holds no .safetensors or .npz file" in refused(tmp_path)


@pytest.mark.parametrize("path", ["x" * 300, "~nosuchuser/w.npz", "a\0b", ""])
def test_paths_that_cannot_be(path: str) -> None:
    with pytest.raises(UserError) as caught:
        find_weights(path)
    assert "\n" not in str(caught.value)
