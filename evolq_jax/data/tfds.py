"""Data sets that tensorflow-datasets has prepared as array_record, read without TensorFlow.

A set's folder says all that is needed (dataset_info.json, features.json, the shards), so neither the code
that prepared it nor the network is asked.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from evolq_jax.data.folder import decode_image
from evolq_jax.data.source import Source, Unreadable
from evolq_jax.data.tfds_builder import (
    check_features,
    check_split,
    default_data_dir,
    import_tfds,
    not_installed,
    open_builder,
    parse_name,
)
from evolq_jax.errors import UserError
from evolq_jax.typing import Preprocessing

_CHUNK_RECORDS = 256


def tfds_source(source: str, preprocessing: Preprocessing, data_dir: str | Path | None = None) -> Source:
    """Lists one split of a prepared data set; images stay encoded in their records until they are asked for.

    The set needs a feature `image`, and for labels a `ClassLabel` called `label`; class indices are in
    the set's own order. Files are decoded, resized and cropped as those of a folder. Image i of a split is
    called `SET/VERSION/SPLIT[i]`, in slices too.

    Args:
        source: `tfds:SET:SPLIT`; the split may be left out where there is only one.
        preprocessing: how a file becomes uint8 [size, size, K].
        data_dir: where sets are found by name; None: `default_data_dir()`.

    Raises:
        UserError: tensorflow-datasets is not installed, the set is unknown, not prepared, in another file
            format or not of images, or the split is unknown or lacks a file.
    """
    name = parse_name(source)
    tfds = import_tfds(source)
    folder = Path(data_dir).expanduser() if data_dir is not None else default_data_dir()
    builder = open_builder(tfds, source, name.data_set, folder)
    split = check_split(builder, source, name.split)
    mode, labelled = check_features(tfds, builder, source)
    try:
        records = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    except ImportError as error:
        raise not_installed(source) from error
    files = _Files(builder.info.splits[split].file_instructions, source)
    names = _names(tfds, builder, split)

    def example(row: int) -> dict[str, Any]:
        try:
            return records[row]
        except RuntimeError as error:  # array_record's, for a damaged file
            raise Unreadable(f"{names[row]} ({' '.join(str(error).split())})") from error

    def decode(row: int) -> np.ndarray:
        return decode_image(BytesIO(example(row)["image"]), names[row], preprocessing, mode)

    def labels(rows: np.ndarray) -> np.ndarray:
        return _read_labels(records, rows, names)

    if labelled and _hides_labels(records):
        labelled = False
    return Source(
        where=source,
        names=names,
        shape=(preprocessing.size, preprocessing.size, 3 if mode == "RGB" else 1),
        decode=decode,
        stamp=files.stamp,
        labels=labels if labelled else None,
        max_label=(builder.info.features["label"].num_classes or 0) - 1 if labelled else -1,
        slow_labels=True,
    )


class _Files:
    """Which file an image lies in, at which place."""

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


def _names(tfds: Any, builder: Any, split: str) -> tuple[str, ...]:
    title, splits = builder.info.full_name, builder.info.splits
    names: list[str] = []
    for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(splits):
        end = splits[part.splitname].num_examples if part.to is None else part.to
        names += [f"{title}/{part.splitname}[{row}]" for row in range(part.from_ or 0, end)]
    return tuple(names)


def _hides_labels(records: Any) -> bool:
    """Whether the first label is -1, as tensorflow-datasets has it in test sets without public labels."""
    try:
        return int(records[0]["label"]) < 0
    except RuntimeError:  # damaged; what that means is decided when images are read
        return False


def _read_labels(records: Any, rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
    found: list[int] = []
    for start in range(0, len(rows), _CHUNK_RECORDS):
        chunk = [int(row) for row in rows[start : start + _CHUNK_RECORDS]]
        try:
            found += [int(example["label"]) for example in records.__getitems__(chunk)]
        except RuntimeError as error:
            raise UserError(
                f"cannot read the labels of {names[chunk[0]]} to {names[chunk[-1]]} "
                f"({' '.join(str(error).split())}): prepare the data set again"
            ) from error
    labels = np.array(found, dtype=np.int32)
    hidden = np.flatnonzero(labels < 0)
    if hidden.size:
        raise UserError(f"image {names[int(rows[hidden[0]])]} has no label, unlike others of its set")
    return labels
