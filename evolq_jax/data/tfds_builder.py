"""Finds and checks data sets that tensorflow-datasets has prepared."""

import os
import re
import shlex
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from evolq_jax.errors import UserError, suggestion
from evolq_jax.notes import say_once
from evolq_jax.paths import has_home, user_path

PREFIX = "tfds:"
INFO = "dataset_info.json"
LISTING = "listing.json"  # of packed folders
_MODES: dict[int, Literal["RGB", "L"]] = {1: "L", 3: "RGB"}
_CHOICE = re.compile(r"(.*)@((?:(?:image|label)=\w+,?)+)")
_LABEL = re.compile(r"label|class|target|^y$", re.IGNORECASE)
_NAME = re.compile(r"\w+(/[\w.-]+)?(:[\w.*]+)?")


class Name(NamedTuple):
    """The parts of `tfds:SET:SPLIT`."""

    data_set: str  # `imagenet2012`, `imagenet_v2/matched-frequency`, `cifar10:3.0.2`, or a folder
    split: str | None  # in the language of tensorflow-datasets: `validation`, `train[:10%]`
    image: str | None = None  # the features that the user chooses: `@image=left,label=coarse_label`
    label: str | None = None


class Features(NamedTuple):
    """What of an example is read."""

    image: str
    images: tuple[str, ...]  # all that must not be decoded
    mode: Literal["RGB", "L"]  # Pillow's
    label: str | None
    num_classes: int | None  # that the labels tell apart; None: the set does not say


def parse_name(source: str) -> Name:
    """Cuts `tfds:SET:SPLIT` at the last colon before a slice. Versions and slices have colons too.

    `@image=NAME`, `@label=NAME` or both, with a comma between, may follow.
    """
    given = _CHOICE.fullmatch(source.removeprefix(PREFIX))
    rest, choice = given.groups() if given else (source.removeprefix(PREFIX), "")
    chosen = dict(each.split("=") for each in choice.split(",")) if choice else {}
    head, bracket, tail = rest.partition("[")
    data_set, colon, split = head.rpartition(":")
    return Name(data_set, split + bracket + tail, **chosen) if colon else Name(head, None, **chosen)


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
        f"image source {source} needs tensorflow-datasets and array_record, which this installation lacks: "
        "pip install tensorflow-datasets array_record importlib_resources"
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
        where = f"dataset_dir={shlex.quote(str(data_dir / re.split('[:/]', data_set)[0]))}"
        if prepared:
            where = f"dataset_version_dir={shlex.quote(str(given))}"
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
            f"`tfds build {data_set} --file_format=array_record --data_dir={shlex.quote(str(data_dir))}`, "
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
            named = shlex.quote(f"{source}:SPLIT")
            raise UserError(f"{source} names no split: write {named} (it has: {', '.join(there)})")
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


def find_features(tfds: Any, builder: Any, name: Name, source: str) -> Features:
    """The image and the label of an example, by their types; of several, those called so.

    Raises:
        UserError: the set has no images, or several and none is called `image`, or images of another type; or
            it has no feature of a name that the user gave.
    """
    given = builder.info.features
    features = dict(sorted(given.items())) if isinstance(given, tfds.features.FeaturesDict) else {}
    pictures = [key for key, each in features.items() if isinstance(each, tfds.features.Image)]
    images = [key for key in pictures if not isinstance(features[key], tfds.features.LabeledImage)]  # masks
    if not images:
        there = ", ".join(features) or "others"
        raise UserError(f"{source} has no images: no feature is one (it has: {there})")
    image = _choose("image", images, name.image, source)
    if image is None:
        raise UserError(
            f"{source} has several images in an example, {', '.join(images)}: choose one, as in "
            f"{_chosen(source, 'image', images[0])}"
        )
    found = features[image]
    if found.np_dtype not in (np.uint8, np.uint16) or found.shape[-1] not in _MODES:
        raise UserError(
            f"{source}: its images are {np.dtype(found.np_dtype).name} of {found.shape[-1]} channels; "
            "evolq_jax reads uint8 and uint16 ones of 3 or 1"
        )
    label = _find_label(tfds, features, name.label, source)
    num_classes = getattr(features[label], "num_classes", None) if label else None
    return Features(image, tuple(pictures), _MODES[found.shape[-1]], label, num_classes)


def _find_label(tfds: Any, features: dict[str, Any], wanted: str | None, source: str) -> str | None:
    """The feature with the labels. Class labels come first, then integers that are called like labels."""
    classes = [key for key, each in features.items() if isinstance(each, tfds.features.ClassLabel)]
    tensors = [key for key, each in features.items() if isinstance(each, tfds.features.Tensor)]
    scalars = [key for key in tensors if not features[key].shape]
    numbers = [key for key in scalars if np.dtype(features[key].np_dtype).kind in "iu"]
    likely = [key for key in numbers if _LABEL.search(key)]
    label = _choose("label", numbers if wanted else classes or likely, wanted, source)
    if label is None and numbers:
        say_once(
            f"{source}: no labels are used, since it could be any of {', '.join(numbers)}; choose one, as in "
            f"{_chosen(source, 'label', numbers[0])}"
        )
    return label


def _chosen(source: str, kind: str, feature: str) -> str:
    """The set's name with the choice of a feature, for a command line."""
    return shlex.quote(f"{source}{',' if _CHOICE.fullmatch(source) else '@'}{kind}={feature}")


def _choose(kind: str, there: list[str], wanted: str | None, source: str) -> str | None:
    """The feature that the user named, the only one, or the one called `kind`. None: nothing decides."""
    if wanted is not None:
        if wanted not in there:
            raise UserError(
                f"{source}: it has no {kind} '{wanted}'{suggestion(wanted, there)} "
                f"(it has: {', '.join(there) or 'none'})"
            )
        return wanted
    if kind in there and len(there) > 1:
        others = ", ".join(key for key in there if key != kind)
        say_once(f"{source}: '{kind}' is used, not {others} ({_chosen(source, kind, 'NAME')} takes another)")
    return kind if kind in there else there[0] if len(there) == 1 else None
