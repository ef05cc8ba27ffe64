"""Reads data sets that tensorflow-datasets has prepared as array_record. TensorFlow is not needed.

A set's folder has everything: dataset_info.json, features.json and the shards. So neither the code that
prepared the set nor the network is needed.
"""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from evolq_jax.data.folder import class_folders
from evolq_jax.data.image_file import decode_image
from evolq_jax.data.source import Source, Unreadable, listed_labels
from evolq_jax.data.tfds_builder import (
    LISTING,
    check_split,
    default_data_dir,
    find_features,
    import_tfds,
    not_installed,
    open_builder,
    parse_name,
)
from evolq_jax.errors import UserError
from evolq_jax.notes import say_once
from evolq_jax.paths import user_path
from evolq_jax.typing import Preprocessing

_CHUNK_RECORDS = 256


def tfds_source(source: str, preprocessing: Preprocessing, data_dir: str | Path | None = None) -> Source:
    """Lists one split of a prepared data set. Images stay encoded in their records until they are needed.

    Image and label are found by their types (`find_features`). Class indices are in the set's own order.
    Files are decoded, resized and cropped like those of a folder. Image i of a split is called
    `SET/VERSION/SPLIT[i]`, in slices too. Images of a packed folder (`pack_folder`) keep their names.

    Args:
        source: `tfds:SET:SPLIT`. The split can be left out if there is only one. `@label=NAME` and
            `@image=NAME` choose among several.
        preprocessing: how a file becomes uint8 [size, size, K].
        data_dir: where sets are found by name; None: `default_data_dir()`.

    Raises:
        UserError: tensorflow-datasets is not installed; the set is unknown, not prepared, in another file
            format, or has no images; the split is unknown or lacks a file.
    """
    name = parse_name(source)
    tfds = import_tfds(source)
    folder = default_data_dir() if data_dir is None else user_path(data_dir, "data.tfds_dir")
    builder = open_builder(tfds, source, name.data_set, folder)
    split = check_split(builder, source, name.split)
    features = find_features(tfds, builder, name, source)
    image, label = features.image, features.label
    undecoded = {key: tfds.decode.SkipDecoding() for key in features.images}
    try:
        records = builder.as_data_source(split=split, decoders=undecoded)
    except ImportError as error:
        raise not_installed(source) from error
    files = _Files(builder.info.splits[split].file_instructions, source)
    parts = _parts(tfds, builder, split)
    packed = _read_listing(Path(builder.data_dir), parts, source)
    names, listed = packed or (_names(builder, parts), None)
    max_label = (features.num_classes or 0) - 1

    def decode(row: int) -> np.ndarray:
        try:
            example = records[row]
        except RuntimeError as error:  # array_record's, for a damaged file
            raise Unreadable(f"{names[row]} ({' '.join(str(error).split())})") from error
        return decode_image(BytesIO(example[image]), names[row], preprocessing, features.mode)

    def read_labels(rows: np.ndarray) -> np.ndarray:
        assert label is not None
        return _read_labels(records, rows, names, label)

    if listed is not None:
        labels, max_label = listed_labels(listed), int(listed.max())
    else:
        labels = read_labels if label is not None and not _hides_labels(records, label, source) else None
    return Source(
        where=source,
        names=names,
        shape=(preprocessing.size, preprocessing.size, 3 if features.mode == "RGB" else 1),
        decode=decode,
        stamp=files.stamp,
        labels=labels,
        max_label=max_label if labels else -1,
        num_classes=features.num_classes if labels else None,
        class_folders=class_folders(names) if packed else None,
        slow_labels=packed is None,
    )


class _Files:
    """Finds the file that holds an image, and the image's place in it."""

    def __init__(self, instructions: Sequence[Any], source: str) -> None:
        self._ends = np.cumsum([part.take for part in instructions])
        self._skips = [part.skip for part in instructions]
        self._stamps: list[list[str | int]] = []
        for part in instructions:
            path = Path(part.filename)
            try:
                stat = path.stat()
            except OSError as error:
                raise UserError(f"{source}: cannot read its file {path}: {error.strerror}") from error
            self._stamps.append([str(path.resolve()), stat.st_size, stat.st_mtime_ns])

    def stamp(self, row: int) -> list[str | int]:
        file = int(np.searchsorted(self._ends, row, side="right"))
        before = int(self._ends[file - 1]) if file else 0
        return [*self._stamps[file], self._skips[file] + row - before]


def _parts(tfds: Any, builder: Any, split: str) -> list[tuple[str, range]]:
    """The named splits of which a split is made, and the images taken from each."""
    splits = builder.info.splits
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
    return [
        (part.splitname, range(splits[part.splitname].num_examples)[part.from_ : part.to]) for part in parts
    ]


def _names(builder: Any, parts: list[tuple[str, range]]) -> tuple[str, ...]:
    title = builder.info.full_name
    return tuple(f"{title}/{split}[{row}]" for split, rows in parts for row in rows)


def _read_listing(
    folder: Path, parts: list[tuple[str, range]], source: str
) -> tuple[tuple[str, ...], np.ndarray | None] | None:
    """Names and labels of a packed folder's images. None: `pack_folder` did not write this set."""
    try:
        listing = json.loads((folder / LISTING).read_bytes())
        names = [name for split, rows in parts for name in listing[split]["names"][rows.start : rows.stop]]
        if len(names) != sum(len(rows) for _, rows in parts):
            raise ValueError("it has not the images of the data set")
        if any(listing[split]["labels"] is None for split, _ in parts):
            return tuple(names), None
        labels = [
            label for split, rows in parts for label in listing[split]["labels"][rows.start : rows.stop]
        ]
        return tuple(names), np.array(labels, np.int32)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{source}: {folder / LISTING} is damaged ({error}): pack the folder again"
        ) from error


def _hides_labels(records: Any, label: str, source: str) -> bool:
    """Whether the first label is -1: tensorflow-datasets marks test sets without public labels like this."""
    try:
        hidden = int(records[0][label]) < 0
    except RuntimeError:  # damaged; what that means is decided when images are read
        return False
    if hidden:
        say_once(f"{source}: its labels are not public (the first is negative), so there is no top-1")
    return hidden


def _read_labels(records: Any, rows: np.ndarray, names: Sequence[str], label: str) -> np.ndarray:
    found: list[int] = []
    for start in range(0, len(rows), _CHUNK_RECORDS):
        chunk = [int(row) for row in rows[start : start + _CHUNK_RECORDS]]
        try:
            found += [int(example[label]) for example in records.__getitems__(chunk)]
        except RuntimeError as error:
            raise UserError(
                f"cannot read the labels of {names[chunk[0]]} to {names[chunk[-1]]} "
                f"({' '.join(str(error).split())}): prepare the data set again"
            ) from error
    labels = np.array(found, dtype=np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels > np.iinfo(np.int32).max))
    if wrong.size:
        first = wrong[0]
        raise UserError(
            f"image {names[int(rows[first])]} has the label {labels[first]}, which is no class index, unlike "
            "others of its set"
        )
    return labels.astype(np.int32)
