"""Images as files: `<class>/<file>`, or flat if no labels are wanted."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evolq_jax.data.class_index import ClassIndex
from evolq_jax.data.image_file import decode_file
from evolq_jax.data.source import Source, listed_labels
from evolq_jax.errors import UserError
from evolq_jax.notes import say_once
from evolq_jax.typing import Preprocessing

# Those of torchvision's ImageFolder. What a file holds decides how it is read, not its name.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def folder_source(folder: Path, preprocessing: Preprocessing, classes: ClassIndex | None) -> Source:
    """Lists a folder's images, sorted by the name of the class folder, then by file name.

    The order does not depend on `classes`, so a seed draws the same images with and without labels. If the
    class-index file is sorted (ImageNet's is), it is the order of the class indices. Hidden entries, other
    file types and deeper folders are passed over; but for hidden ones, a line says how many.

    Args:
        folder: the root. It holds class folders of images, or images directly (then without labels).
        preprocessing: how a file becomes uint8 [size, size, 3].
        classes: which class has which index; None: no labels.

    Returns:
        The set; names are relative to `folder`, labels int32 [B] or None.

    Raises:
        UserError: no images, an unreadable folder, or a class of which `classes` knows nothing.
    """
    entries, passed_over = _list_images(folder)
    if not entries:
        raise UserError(
            f"no images in {folder}: expected <class>/<file> or files directly, "
            f"ending in one of {' '.join(EXTENSIONS)}"
        )
    if passed_over:
        say_once(f"{folder}: passed over {_counted(passed_over)}; {len(entries)} images are used")
    labels = None if classes is None else _labels(folder, entries, classes)
    names = tuple(f"{class_name}/{file}" if class_name else file for class_name, file in entries)
    root = str(folder.resolve())

    def decode(index: int) -> np.ndarray:
        return decode_file(folder / names[index], preprocessing)

    def stamp(index: int) -> list[str | int]:
        try:
            stat = (folder / names[index]).stat()
        except OSError:
            return [root, *entries[index], -1, -1]
        return [root, *entries[index], stat.st_size, stat.st_mtime_ns]

    return Source(
        where=str(folder),
        names=names,
        labels=None if labels is None else listed_labels(labels),
        max_label=-1 if labels is None else int(labels.max()),
        class_names=() if classes is None else tuple(names[0] for names in classes.classes),
        class_folders=class_folders(names),
        shape=(preprocessing.size, preprocessing.size, 3),
        decode=decode,
        stamp=stamp,
    )


def class_folders(names: Sequence[str]) -> np.ndarray | None:
    """The number of each image's folder, integers [B] in sorted order. None: no name [B] has a folder."""
    folders, numbers = np.unique([name.rpartition("/")[0] for name in names], return_inverse=True)
    return None if folders.tolist() == [""] else numbers


def _labels(folder: Path, entries: list[tuple[str, str]], classes: ClassIndex) -> np.ndarray:
    found: dict[str, int] = {}
    for class_name, file in entries:
        if not class_name:
            raise UserError(
                f"{folder / file} lies outside a class folder, so it has no label; "
                "move it into <class>/ or go without class_index (--data.class-index None; of evolq pack: "
                "no --class-index)"
            )
        if class_name not in found:
            number = classes.find(class_name)
            if number is None:
                raise UserError(
                    f"unknown class '{class_name}': folder {folder / class_name} is not among the "
                    f"{len(classes.classes)} classes of {classes.where}{classes.nearest(class_name)}"
                )
            found[class_name] = number
    return np.array([found[class_name] for class_name, _ in entries], dtype=np.int32)


class _Entry(NamedTuple):
    name: str
    is_folder: bool
    is_file: bool  # or a broken link, which is reported as unreadable instead of vanishing


def _list_images(folder: Path) -> tuple[list[tuple[str, str]], Counter[str]]:
    """Class folder (or "") and name of each image, sorted, and how many entries of other kinds there are."""
    found: list[tuple[str, str]] = []
    others: Counter[str] = Counter()

    def add(place: str, entry: _Entry) -> None:
        ending = os.path.splitext(entry.name)[1].lower()
        if entry.is_folder:
            others["folders inside class folders"] += 1
        elif not entry.is_file:
            others["pipes or devices"] += 1
        elif ending in EXTENSIONS:
            found.append((place, entry.name))
        else:
            others[f"{ending} files" if ending else "files without an ending"] += 1

    for entry in _entries(folder):
        for nested in _entries(folder / entry.name) if entry.is_folder else ():
            add(entry.name, nested)
        if not entry.is_folder:
            add("", entry)
    return sorted(found), others


def _entries(folder: Path) -> list[_Entry]:
    try:
        with os.scandir(folder) as entries:
            return [
                _Entry(each.name, each.is_dir(), each.is_file() or each.is_symlink())
                for each in entries
                if not each.name.startswith(".")
            ]
    except OSError as error:
        raise UserError(f"cannot list folder {folder}: {error.strerror}") from error


def _counted(others: Counter[str]) -> str:
    """`4 .gif files, 1 files without an ending`, the most first."""
    ordered = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[5:])
    return ", ".join(f"{count} {kind}" for kind, count in ordered[:5]) + (f" and {rest} more" if rest else "")
