"""Finds and checks data sets that tensorflow-datasets has prepared."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evolq_jax.errors import UserError, suggestion
from evolq_jax.paths import has_home, user_path

PREFIX = "tfds:"
INFO = "dataset_info.json"
LISTING = "listing.json"  # of packed folders
_MODES = {1: "L", 3: "RGB"}
_NAME = re.compile(r"\w+(/[\w.-]+)?(:[\w.*]+)?")


class Name(NamedTuple):
    """The parts of `tfds:SET:SPLIT`."""

    data_set: str  # `imagenet2012`, `imagenet_v2/matched-frequency`, `cifar10:3.0.2`, or a folder
    split: str | None  # in the language of tensorflow-datasets: `validation`, `train[:10%]`


def parse_name(source: str) -> Name:
    """Cuts `tfds:SET:SPLIT` at the last colon before a slice. Versions and slices have colons too."""
    head, bracket, tail = source.removeprefix(PREFIX).partition("[")
    data_set, colon, split = head.rpartition(":")
    return Name(data_set, split + bracket + tail) if colon else Name(head, None)


def default_data_dir() -> Path:
    """`$TFDS_DATA_DIR` if it is set, otherwise `~/tensorflow_datasets`, as in tensorflow-datasets.

    Raises:
        UserError: there is no home folder.
    """
    given = os.environ.get("TFDS_DATA_DIR")
    if not given and not has_home():
        raise UserError("there is no home folder with data sets: set data.tfds_dir or TFDS_DATA_DIR")
    return user_path(given or "~/tensorflow_datasets", "TFDS_DATA_DIR")


def import_tfds(source: str) -> Any:
    """Imports tensorflow_datasets. This takes a second, so it is done only when it is needed.

    Raises:
        UserError: it is not installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise not_installed(source) from error
    return tfds


def not_installed(source: str) -> UserError:
    """The error for a missing tensorflow-datasets or array_record."""
    return UserError(
        f"image source {source} needs tensorflow-datasets and array_record: pip install 'evolq_jax[tfds]'"
    )


def open_builder(tfds: Any, source: str, data_set: str, data_dir: Path) -> Any:
    """Opens a prepared set from its files alone.

    Args:
        tfds: the module.
        source: the whole name, for messages.
        data_set: a folder with a prepared set, or the set's name below `data_dir`.
        data_dir: where sets are found by name.

    Raises:
        UserError: the set is unknown, not prepared, damaged or in another file format than array_record.
    """
    from tensorflow_datasets.core.read_only_builder import builder_from_files

    given = user_path(data_set, "image source")
    prepared = (given / INFO).is_file()
    if not prepared and not _NAME.fullmatch(data_set):
        raise UserError(
            f"{source}: '{data_set}' is no folder of a prepared data set (with {INFO}) and no name of one: "
            "write tfds:SET:SPLIT, as in tfds:imagenet2012:validation"
        )
    try:
        if prepared:
            return tfds.builder_from_directory(str(given), file_format="array_record")
        return builder_from_files(data_set, data_dir=str(data_dir), file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise _not_found(tfds, source, data_set, data_dir) from error
    except Exception as error:  # whatever a damaged description makes its reader raise
        text = " ".join(str(error).split())
        if "file format" not in text.lower():
            raise UserError(f"cannot open {source}: {text}; prepare the data set again") from error
        where = f"dataset_dir={data_dir / re.split('[:/]', data_set)[0]}"
        if prepared:
            where = f"dataset_version_dir={given}"
        raise UserError(
            f"{source} is prepared in another file format than array_record, which only TensorFlow reads: "
            f"where that is installed, run once `tfds convert_format --{where} "
            "--out_file_format=array_record`"
        ) from error


def _not_found(tfds: Any, source: str, data_set: str, data_dir: Path) -> UserError:
    plain = re.split("[:/]", data_set)[0]
    known = tfds.list_builders(with_community_datasets=False)
    here = [path.name for path in data_dir.iterdir() if path.is_dir()] if data_dir.is_dir() else []
    if plain in here:
        inside = ", ".join(sorted(path.name for path in (data_dir / plain).iterdir() if path.is_dir()))
        return UserError(
            f"{source}: {data_dir / plain} has no such version or configuration (it has: {inside or 'none'})"
        )
    if plain in known:
        return UserError(
            f"{source} is not prepared in {data_dir}: where TensorFlow is installed, run once "
            f"`tfds build {data_set} --file_format=array_record --data_dir={data_dir}`, "
            "or set data.tfds_dir to where it is"
        )
    return UserError(
        f"{source}: tensorflow-datasets knows no data set '{plain}', and {data_dir} holds none of this name"
        f"{suggestion(plain, [*here, *known])}"
    )


def check_split(builder: Any, source: str, split: str | None) -> str:
    """The split. If none is named, the only one that there is.

    Raises:
        UserError: the split is unknown or empty, its slice is wrong, or none is named and there are several.
    """
    there = sorted(builder.info.splits)
    if split is None:
        if len(there) != 1:
            raise UserError(f"{source} names no split: write {source}:SPLIT (it has: {', '.join(there)})")
        return there[0]
    try:
        number = builder.info.splits[split].num_examples
    except (ValueError, KeyError) as error:
        text = " ".join(str(error).split()).rstrip(".")
        if "Unknown split" in text:
            text = f"unknown split '{split}'{suggestion(split, there)}"
        raise UserError(f"{source}: {text} (it has: {', '.join(there)})") from error
    if not number:
        raise UserError(f"{source}: split '{split}' is empty")
    return split


def check_features(tfds: Any, builder: Any, source: str) -> tuple[Any, bool]:
    """Pillow's mode for the images, and whether there are labels.

    Raises:
        UserError: the set has no images, or images of another type.
    """
    features = builder.info.features
    there = list(features.keys()) if isinstance(features, tfds.features.FeaturesDict) else []
    if "image" not in there or not isinstance(features["image"], tfds.features.Image):
        raise UserError(
            f"{source} has no images: no feature 'image' (it has: {', '.join(there) or 'others'})"
        )
    image = features["image"]
    if image.np_dtype != np.uint8 or image.shape[-1] not in _MODES:
        raise UserError(
            f"{source}: its images are {np.dtype(image.np_dtype).name} of {image.shape[-1]} channels; "
            "evolq_jax reads uint8 ones of 3 or 1"
        )
    return _MODES[image.shape[-1]], "label" in there and isinstance(
        features["label"], tfds.features.ClassLabel
    )
