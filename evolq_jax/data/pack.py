"""Packs an image folder into array_record files: a data set for `tfds:OUT`, and for tensorflow-datasets.

Records hold the files' bytes as they are, so decoding gives the same pixels. `listing.json` repeats names
and labels, so listing and drawing read no record. Shards are finished one by one in `OUT.partial`. When all
are there, the folder is renamed. So a folder called `OUT` is complete, and a second start after a kill keeps
the finished shards.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evolq_jax.data.class_index import read_class_index
from evolq_jax.data.folder import folder_source
from evolq_jax.data.source import Source
from evolq_jax.data.tfds_builder import LISTING, import_tfds, not_installed
from evolq_jax.data.threads import in_order
from evolq_jax.errors import UserError
from evolq_jax.paths import atomic, open_regular
from evolq_jax.typing import Preprocessing, Progress

SET, SPLIT, VERSION = "images", "images", "1.0.0"
_PLAN = "plan.json"
_SHARD_BYTES = 1 << 28
_FILES_AHEAD = 64


class Packed(NamedTuple):
    """What was written."""

    num_images: int
    num_shards: int
    kept_shards: int  # finished by an earlier, interrupted start


def pack_folder(
    folder: Path, out: Path, class_index: Path | None = None, progress: Progress | None = None
) -> Packed:
    """Writes the images of a folder, in the order of `folder_source`, to a new data set.

    Args:
        folder: `<class>/<file>` or flat.
        out: the data set's folder; it must be empty or missing.
        class_index: file that lists the classes in index order; None: without labels.
        progress: called with (images done, images in all).

    Raises:
        UserError: tensorflow-datasets is not installed; the folder has no images, or one of an unknown
            class; a file cannot be read; `out` exists, lies in `folder` or cannot be written.
    """
    tfds = import_tfds(f"tfds:{out}")
    if folder.resolve() in out.resolve().parents:
        raise UserError(
            f"{out} lies in {folder}, which it would change: give the data set a folder elsewhere"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: give the data set another folder, or remove it")
    index = None if class_index is None else read_class_index(class_index)
    source = folder_source(folder, Preprocessing(), index)
    classes = None if index is None else index.ids
    labels = None if source.labels is None else source.labels(np.arange(len(source.names)))
    features = _features(tfds, classes)
    stamps = [source.stamp(row) for row in range(len(source.names))]
    shards = _cut(stamps)
    partial = out.with_name(f"{out.name}.partial")

    def record(row: int) -> bytes:
        name = source.names[row]
        example: dict[str, Any] = {"file_name": os.fsencode(name), "image": BytesIO(_read(folder / name))}
        if labels is not None:
            example["label"] = int(labels[row])
        return _in_fixed_order(features.serialize_example(features.encode_example(example)))

    try:
        kept = _begin(partial, [stamps, None if labels is None else labels.tolist(), classes, _SHARD_BYTES])
        for number, rows in enumerate(shards):
            path = partial / _shard_name(number, len(shards))
            if not path.is_file():
                records = in_order(record, rows, _FILES_AHEAD)
                _write_shard(path, _counted(records, rows.start, len(source.names), progress), len(rows))
        _describe(tfds, partial, shards, features=features, source=source, labels=labels)
        os.replace(partial, out)
        (out / _PLAN).unlink()
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot write the data set in {partial}: {reason}") from error
    return Packed(len(source.names), len(shards), kept)


def _in_fixed_order(record: bytes) -> bytes:
    """Sorts a record's features: protobuf writes a map in an order that differs between processes."""
    from tensorflow_datasets.proto import tf_example_pb2

    example: Any = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]
    return example.FromString(record).SerializeToString(deterministic=True)


def _features(tfds: Any, classes: list[str] | None) -> Any:
    make = tfds.features
    features = {"file_name": make.Text(), "image": make.Image(shape=(None, None, 3))}
    return make.FeaturesDict(
        features | ({} if classes is None else {"label": make.ClassLabel(names=classes)})
    )


def _cut(stamps: list[list[str | int]]) -> list[range]:
    """Rows of each shard: as many shards as the files' bytes need, of equal numbers of images."""
    total = sum(max(int(stamp[-2]), 0) for stamp in stamps)
    number = min(-(-total // _SHARD_BYTES) or 1, len(stamps))
    bounds = [round(len(stamps) * shard / number) for shard in range(number + 1)]
    return [range(first, last) for first, last in pairwise(bounds)]


def _shard_name(number: int, count: int) -> str:
    return f"{SET}-{SPLIT}.array_record-{number:05d}-of-{count:05d}"


def _begin(partial: Path, plan: list[Any]) -> int:
    """Makes the working folder, or keeps that of an interrupted start with the same plan.

    Returns:
        The number of shards that are there already.
    """
    text = hashlib.sha256(json.dumps(plan).encode()).hexdigest()
    record = partial / _PLAN
    if record.is_file() and record.read_text() == text:
        for unfinished in partial.glob("*.tmp"):
            unfinished.unlink()
        return len(list(partial.glob(f"{SET}-{SPLIT}.array_record-*")))
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    with atomic(record) as file:
        file.write(text.encode())
    return 0


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise UserError(f"cannot read image {path} ({error.strerror}); remove it from the folder") from error


def _counted(records: Iterable[bytes], start: int, total: int, progress: Progress | None) -> Iterator[bytes]:
    for done, record in enumerate(records, start + 1):
        yield record
        if progress is not None:
            progress(done, total)


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write_shard(path: Path, records: Iterable[bytes], count: int) -> None:
    try:
        from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
    except ImportError as error:
        raise not_installed(f"tfds:{path.parent}") from error
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    # One record a group for random access; images are compressed already.
    writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
    try:
        for record in records:
            writer.write(record)
    finally:
        writer.close()
    _to_disk(temporary)
    reader = ArrayRecordReader(str(temporary))
    found = reader.num_records()
    reader.close()
    if found != count:
        raise OSError(f"{temporary} has {found} records of {count} after writing")
    os.replace(temporary, path)


def _describe(
    tfds: Any, folder: Path, shards: list[range], *, features: Any, source: Source, labels: np.ndarray | None
) -> None:
    """Writes what makes the shards a data set: the description of tensorflow-datasets, and the listing."""
    template = tfds.core.ShardedFileTemplate(
        dataset_name=SET, data_dir=folder, filetype_suffix="array_record", split=SPLIT
    )
    size = sum((folder / _shard_name(n, len(shards))).stat().st_size for n in range(len(shards)))
    lengths = [len(rows) for rows in shards]
    split = tfds.core.SplitInfo(name=SPLIT, shard_lengths=lengths, num_bytes=size, filename_template=template)
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), features=features, split_infos=[split], version=VERSION, check_data=False
    )
    listing = {"names": source.names, "labels": None if labels is None else labels.tolist()}
    with atomic(folder / LISTING) as file:
        file.write(json.dumps({SPLIT: listing}).encode())
    for path in folder.iterdir():
        _to_disk(path)
