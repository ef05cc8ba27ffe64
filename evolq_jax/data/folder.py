"""Images as files: `<class>/<file>`, or flat if no labels are wanted."""

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from evolq_jax.data.preprocess import resize_and_crop
from evolq_jax.data.source import Source, Unreadable, listed_labels
from evolq_jax.errors import UserError
from evolq_jax.typing import Preprocessing

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Pillow's decoders let some of their parsers' errors through.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def folder_source(folder: Path, preprocessing: Preprocessing, class_index: Path | None) -> Source:
    """Lists a folder's images, sorted by the name of the class folder, then by file name.

    The order does not depend on `class_index`, so a seed draws the same images with and without labels. If
    the class-index file is sorted (ImageNet's is), it is the order of the class indices. Hidden entries,
    other file types and deeper folders are ignored.

    Args:
        folder: the root. It holds class folders of images, or images directly (then without labels).
        preprocessing: how a file becomes uint8 [size, size, 3].
        class_index: file with one class id per line, in index order; None: no labels.

    Returns:
        The set; names are relative to `folder`, labels int32 [B] or None.

    Raises:
        UserError: no images, an unreadable folder or class-index file, or a class not in that file.
    """
    entries = _list_images(folder)
    if not entries:
        raise UserError(
            f"no images in {folder}: expected <class>/<file> or files directly, "
            f"ending in one of {' '.join(EXTENSIONS)}"
        )
    labels = None if class_index is None else _labels(folder, entries, class_index)
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
        class_folders=class_folders(names),
        shape=(preprocessing.size, preprocessing.size, 3),
        decode=decode,
        stamp=stamp,
    )


def class_folders(names: Sequence[str]) -> np.ndarray | None:
    """The number of each image's folder, integers [B] in sorted order. None: no name [B] has a folder."""
    folders, numbers = np.unique([name.rpartition("/")[0] for name in names], return_inverse=True)
    return None if folders.tolist() == [""] else numbers


def decode_file(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """Decodes one file to RGB, resizes it and crops it.

    Returns:
        uint8 [size, size, 3].

    Raises:
        Unreadable: the file cannot be opened or decoded to its end.
        UserError: the image is smaller than the crop.
    """
    return decode_image(path, path, preprocessing)


def decode_image(
    file: Path | BinaryIO, name: str | Path, preprocessing: Preprocessing, mode: Literal["RGB", "L"] = "RGB"
) -> np.ndarray:
    """As `decode_file`, for anything that Pillow can open: uint8 [size, size, K], K = 3 (RGB) or 1 (L)."""
    try:
        with Image.open(file) as image:
            pixels = image.convert(mode)
    except _DECODE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Unreadable(f"{name} ({reason})") from error
    return resize_and_crop(pixels, preprocessing, name)


def read_class_index(path: Path) -> dict[str, int]:
    """Reads a class-index file: one class per line, in index order. The first word of a line is the class id.

    Raises:
        UserError: the file is missing, not text or empty, has an empty line inside, or names a class twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except OSError as error:
        raise UserError(f"cannot read class_index {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"class_index {path} is not a text file (one class id per line)") from error
    if not lines:
        raise UserError(f"class_index {path} is empty: expected one class id per line")
    index: dict[str, int] = {}
    for number, line in enumerate(lines):
        words = line.split()
        if not words:
            raise UserError(
                f"class_index {path}, line {number + 1} is empty: the lines after it would be off by one"
            )
        if words[0] in index:
            raise UserError(
                f"class_index {path} has class '{words[0]}' twice, "
                f"in lines {index[words[0]] + 1} and {number + 1}"
            )
        index[words[0]] = number
    return index


def _labels(folder: Path, entries: list[tuple[str, str]], class_index: Path) -> np.ndarray:
    index = read_class_index(class_index)
    for class_name, file in entries:
        if not class_name:
            raise UserError(
                f"{folder / file} lies outside a class folder, so it has no label; "
                "move it into <class>/ or set class_index to None"
            )
        if class_name not in index:
            raise UserError(
                f"unknown class '{class_name}': folder {folder / class_name} is not among "
                f"the {len(index)} classes of class_index {class_index}"
            )
    return np.array([index[class_name] for class_name, _ in entries], dtype=np.int32)


def _list_images(folder: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, is_folder in _entries(folder):
        if is_folder:
            found += [
                (name, file) for file, nested in _entries(folder / name) if not nested and _is_image(file)
            ]
        elif _is_image(name):
            found.append(("", name))
    return sorted(found)


def _entries(folder: Path) -> list[tuple[str, bool]]:
    # A broken link counts as a file here, so that it is reported as unreadable instead of vanishing.
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot list folder {folder}: {error.strerror}") from error


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)
