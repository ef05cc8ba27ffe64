"""`load_images` loads any image set."""

import logging
import math
import os
import shlex
from pathlib import Path

import numpy as np

from evolq_jax.data.arrays import npz_source
from evolq_jax.data.cache import cached_decode, default_cache_dir
from evolq_jax.data.class_index import read_class_index
from evolq_jax.data.decode import Decoded, OnCorrupt
from evolq_jax.data.digits import DIGITS, digits_source
from evolq_jax.data.draw import Draw, draw_rows
from evolq_jax.data.folder import folder_source
from evolq_jax.data.labels import read_labels
from evolq_jax.data.pixel_file import decode_uncached
from evolq_jax.data.preprocess import check_preprocessing
from evolq_jax.data.source import Source
from evolq_jax.data.tfds import tfds_source
from evolq_jax.data.tfds_builder import INFO, PREFIX, parse_name
from evolq_jax.devices import hosts
from evolq_jax.errors import UserError, suggestion
from evolq_jax.paths import user_path
from evolq_jax.typing import Images, Preprocessing, Progress

_log = logging.getLogger(__name__)


def load_images(
    source: str | Path,
    preprocessing: Preprocessing,
    *,
    class_index: str | Path | None = None,
    num: int | None = None,
    seed: int | None = 0,
    draw: Draw = "random",
    cache_dir: str | Path | None = "auto",
    cache_gib: float | None = None,
    on_corrupt: OnCorrupt = "error",
    tfds_dir: str | Path | None = None,
    progress: Progress | None = None,
    shared: bool = False,
) -> Images:
    """Loads an image set, or a reproducible subset of it, as uint8 pixels, resized and cropped.

    With several processes, each one decodes its share of the images.

    Args:
        source: a folder in `<class>/<file>` layout (or flat, without labels), an `.npz` with `image` uint8
            [B, h, w, 3 or 1] and optionally `label` [B], `digits:train` / `digits:test`, or `tfds:SET:SPLIT`:
            a set that tensorflow-datasets has prepared as array_record (`tfds_source`).
        preprocessing: how the checkpoint wants its images. `mean` and `std` are not applied here.
        class_index: for folders, the file that lists the classes (`read_class_index`); None: no labels.
        num: the number of images; None: all.
        seed: draws the `num` images; None: the first `num`.
        draw: `random` (`draw_indices`), or `balanced` over class folders or labels (`draw_balanced`).
        cache_dir: where decoded images are kept. "auto" is `default_cache_dir()`, None keeps nothing.
        cache_gib: how much decoded images may take there. The entry that was not used for longest makes room.
        on_corrupt: "error", or "skip": unreadable images are left out. Then fewer than `num` images come
            back, `Images.skipped` names the missing ones, and a warning is logged.
        tfds_dir: where tensorflow-datasets keeps its sets; None: `default_data_dir()`.
        progress: called with (done, total) after each decoded image, if any image must be decoded.
        shared: each process keeps only its share (`Images.first`). Otherwise every process gets all images.

    Returns:
        `Images` of B = `num` minus the skipped, in the order of the set: by class folder, then file name.

    Raises:
        UserError: the arguments, the files or the cache are wrong.
    """
    if on_corrupt not in ("error", "skip"):
        raise UserError(f"on_corrupt must be 'error' or 'skip', got {on_corrupt!r}")
    listed = open_source(source, preprocessing, class_index, tfds_dir)
    cache = _cache_folder(cache_dir)
    indices = draw_rows(listed, num, seed=seed, draw=draw, cache_dir=cache)
    if shared and len(indices) < hosts.num_processes():
        raise UserError(
            f"{len(indices)} images of {source} are too few for {hosts.num_processes()} processes"
        )
    mine = hosts.share(len(indices))
    decoded = _decode(
        listed,
        indices[mine],
        preprocessing,
        cache=cache,
        cache_gib=cache_gib,
        on_corrupt=on_corrupt,
        progress=progress,
    )
    left_out = hosts.gather(mine.start + np.asarray(decoded.skipped, np.int64))
    skipped = tuple(listed.names[index] for index in indices[left_out])
    if skipped:
        named = ", ".join(skipped[:10]) + (", ..." if len(skipped) > 10 else "")
        _log.warning(
            "%s: left out %d unreadable of %d images: %s", listed.where, len(skipped), len(indices), named
        )
    own = np.delete(indices[mine], decoded.skipped)
    labels = read_labels(listed, own, cache)
    return Images(
        pixels=decoded.pixels if shared else hosts.gather(decoded.pixels),
        labels=None if labels is None else hosts.gather(labels),
        names=tuple(listed.names[index] for index in np.delete(indices, left_out)),
        skipped=skipped,
        first=mine.start - int((left_out < mine.start).sum()) if shared else 0,
    )


def open_source(
    source: str | Path,
    preprocessing: Preprocessing,
    class_index: str | Path | None = None,
    tfds_dir: str | Path | None = None,
) -> Source:
    """Lists an image set without decoding it. Arguments and errors are those of `load_images`."""
    check_preprocessing(preprocessing)
    source = str(source)
    is_name = source in DIGITS or source.startswith(PREFIX)
    path = Path(source) if is_name else user_path(source, "image source")
    if not is_name and path.is_dir():
        if (path / INFO).is_file():
            raise UserError(
                f"{source} is a prepared data set, not a folder of images: write "
                f"{shlex.quote(PREFIX + source)}"
            )
        index = None if class_index is None else read_class_index(user_path(class_index, "class_index"))
        return folder_source(path, preprocessing, index)
    if class_index is not None:
        _check_exists(source, path)
        raise UserError(
            f"class_index is for folders, and {source} has its own labels; go without class_index "
            "(--data.class-index None)"
        )
    if source in DIGITS:
        return digits_source(source, preprocessing)
    if source.startswith(PREFIX):
        return tfds_source(source, preprocessing, tfds_dir)
    _check_exists(source, path)
    if path.suffix.lower() != ".npz":
        raise UserError(f"image source {source} is a file of unknown kind; expected a folder or an .npz")
    return npz_source(path, preprocessing)


def absolute_source(source: str) -> str:
    """The name of an image set, from every folder. Names of sets stay as they are."""
    if source in DIGITS:
        return source
    if not source.startswith(PREFIX):
        return os.path.abspath(user_path(source, "image source"))
    data_set = parse_name(source).data_set
    folder = user_path(data_set, "image source")
    if not data_set or not (folder / INFO).is_file():
        return source
    return PREFIX + os.path.abspath(folder) + source.removeprefix(PREFIX + data_set)


def share_images(one: str, other: str) -> bool:
    """Whether two image sets may have images in common, by their names: one is the other, or a part of it."""
    one, other = (absolute_source(each) for each in (one, other))
    if one.startswith(PREFIX) and other.startswith(PREFIX):
        (first, *splits), (second, *others) = (_set_and_splits(each) for each in (one, other))
        return first == second and bool(set(splits) & set(others) or not splits or not others)
    paths = [Path(each) for each in (one, other)]
    return one == other or paths[0] in paths[1].parents or paths[1] in paths[0].parents


def _set_and_splits(source: str) -> list[str]:
    """The data set, and the splits that its parts are of: `train[:10%]+test` is of `train` and `test`."""
    data_set, split, *_ = parse_name(source)
    return [data_set, *(part.partition("[")[0] for part in (split or "").split("+") if part)]


def _cache_folder(cache_dir: str | Path | None) -> Path | None:
    if cache_dir is None:
        return None
    return default_cache_dir() if cache_dir == "auto" else user_path(cache_dir, "the image cache")


def _check_exists(source: str, path: Path) -> None:
    if source in DIGITS or source.startswith(PREFIX) or path.exists():
        return
    siblings = [str(other) for other in path.parent.glob("*")] if path.parent.is_dir() else []
    raise UserError(
        f"image source {source} does not exist "
        f"(a folder, an .npz, {PREFIX}SET:SPLIT, or one of {', '.join(DIGITS)})"
        f"{suggestion(source, [*siblings, *DIGITS])}"
    )


def _decode(
    source: Source,
    indices: np.ndarray,
    preprocessing: Preprocessing,
    *,
    cache: Path | None,
    cache_gib: float | None,
    on_corrupt: OnCorrupt,
    progress: Progress | None,
) -> Decoded:
    if not len(indices):  # fewer images than processes
        return Decoded(np.zeros((0, *source.shape), np.uint8), ())
    if source.pixels is not None:
        whole = len(indices) == len(source.pixels)
        return Decoded(source.pixels if whole else source.pixels[indices], ())
    if cache is None:
        return decode_uncached(source, indices, on_corrupt, progress)
    max_bytes = math.inf if cache_gib is None else cache_gib * 2**30
    return cached_decode(
        source,
        indices,
        preprocessing,
        cache,
        on_corrupt=on_corrupt,
        progress=progress,
        max_bytes=max_bytes,
    )
