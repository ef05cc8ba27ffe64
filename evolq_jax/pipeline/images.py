"""The calibration and evaluation images of a config. They are listed and counted first, and decoded later."""

from dataclasses import replace

from evolq_jax.config.experiment import DataConfig, Experiment
from evolq_jax.data import check_draw, load_images, open_source
from evolq_jax.data.load import share_images
from evolq_jax.data.source import Source
from evolq_jax.errors import UserError
from evolq_jax.network.chunks import usual_batch
from evolq_jax.notes import say_once
from evolq_jax.paths import shortened
from evolq_jax.pipeline.load import Setup
from evolq_jax.quantized.calibrate import LARGEST_BATCH
from evolq_jax.typing import Images, Preprocessing, Progress, no_progress


def count_calibration(setup: Setup, *, for_search: bool) -> int:
    """The number of calibration images, from a listing of their source.

    Raises:
      UserError: the source is missing, empty or too small; its images do not fit the network; their number
        does not fit the batches.
    """
    data = setup.config.data
    source = open_source(data.calibration, setup.model.preprocessing, None, data.tfds_dir)
    check_draw(source, data.draw)
    count = _number(data.num_calibration, "num_calibration", data.calibration, source)
    check_channels(source, data.calibration, setup.model.preprocessing)
    check_batches(setup.config, count, for_search=for_search)
    return count


def count_evaluation(setup: Setup) -> int:
    """The number of evaluation images, from a listing of their source.

    Raises:
      UserError: as `count_calibration`; or a class is unknown, or the network has no such class.
    """
    data, num_classes = setup.config.data, setup.model.config.num_classes
    source = open_source(data.evaluation, evaluation_preprocessing(setup), data.class_index, data.tfds_dir)
    count = _number(data.num_evaluation, "num_evaluation", data.evaluation, source)
    check_channels(source, data.evaluation, setup.model.preprocessing)
    _check_classes(source, data.evaluation, num_classes)
    if share_images(data.calibration, data.evaluation):
        say_once(
            f"calibration ('{data.calibration}') and evaluation ('{data.evaluation}') can have images in "
            "common: then scores are better than on new images; set data.evaluation to others"
        )
    return count


def _check_classes(source: Source, where: str, num_outputs: int) -> None:
    """Compares the classes of a set with those of the network. One output tells two classes apart.

    Raises:
      UserError: the network has fewer classes, or a list of classes has another number of them. Then labels
        could be shifted.
    """
    num_classes, listed = max(num_outputs, 2), source.class_names
    if listed and len(listed) != num_classes:
        raise UserError(
            f"data.class_index lists {len(listed)} classes (the first is '{shortened(listed[0])}'), but the "
            f"network has {num_classes}: remove lines that are no class of it, or add those that lack"
        )
    check_labels(source.max_label, where, num_outputs)
    if source.num_classes is not None and source.num_classes != num_classes:
        say_once(
            f"'{where}' has {source.num_classes} classes, and the network {num_classes}: top-1 is right only "
            "if their indices mean the same"
        )


def check_labels(highest: int, where: str, num_outputs: int) -> None:
    """Refuses labels that the network has no class for.

    Raises:
      UserError: the highest label is one.
    """
    num_classes = max(num_outputs, 2)
    if highest >= num_classes:
        raise UserError(
            f"'{where}' has label {highest}, but the network has {num_classes} classes; "
            "check data.class_index and the weights"
        )


def _number(wanted: int | None, field: str, where: str, source: Source) -> int:
    """As many images as a field of the config wants; None: all."""
    total = len(source.names)
    if wanted is not None and wanted > total:
        raise UserError(f"data.{field} asks for {wanted} images, but '{where}' has only {total}")
    return wanted or total


def check_channels(source: Source, where: str, preprocessing: Preprocessing) -> None:
    """Refuses images of another number of channels than the network takes.

    Raises:
      UserError: they have another.
    """
    found, channels = source.shape[2], len(preprocessing.mean)
    if found != channels:
        raise UserError(
            f"'{where}' has {found}-channel images, but the network takes {channels}-channel ones"
        )


def check_batches(config: Experiment, count: int, *, for_search: bool, skipped: int = 0) -> None:
    """Checks that the number of calibration images fits the batches that the user has set.

    Others are made to fit. A line says so if they are not of the usual size.

    Raises:
      UserError: there are fewer images than a batch, the last batch would not be whole, or a search could
        hold out no batch.
    """
    batches = {"calibration.batch_size": config.calibration.batch_size}
    fitted = {"calibration.batch_size": (LARGEST_BATCH, usual_batch(count, LARGEST_BATCH))}
    if for_search:
        batches["search.batch_size"] = config.search.batch_size
        fitted["search.batch_size"] = (config.search.usual_batch, config.search.fitted(count).batch_size or 1)
    left_out = f" ({skipped} unreadable ones left out)" if skipped else ""
    changed = [
        f"{key} {size}, not {usual}"
        for key, (usual, size) in fitted.items()
        if batches[key] is None and size != usual
    ]
    if changed:
        say_once(f"{count} calibration images{left_out} make batches of another size: {'; '.join(changed)}")
    for key, batch in batches.items():
        if batch is not None and (count % batch or count < batch):
            wrong = "fewer than one batch" if count < batch else "no whole number of batches"
            raise UserError(
                f"{count} calibration images{left_out} are {wrong} of {batch}: "
                f"change {key} or data.num_calibration"
            )
    if for_search:
        config.search.num_held_out(count)


def load_calibration(setup: Setup, progress: Progress = no_progress) -> Images:
    """The calibration images, drawn by the seed. Labels are used for a balanced draw only.

    Raises:
      UserError: the source is missing, empty or too small, or an image cannot be read.
    """
    data = setup.config.data
    return load_images(
        data.calibration,
        setup.model.preprocessing,
        num=data.num_calibration,
        seed=setup.config.seed,
        draw=data.draw,
        cache_dir=data.cache,
        cache_gib=data.cache_gib,
        on_corrupt=data.on_corrupt,
        tfds_dir=data.tfds_dir,
        progress=progress,
    )


def load_evaluation(setup: Setup, progress: Progress = no_progress) -> Images:
    """The evaluation images, the same for every seed. Of several processes each holds a share.

    Raises:
      UserError: the source is missing or empty, a class is unknown, or an image cannot be read.
    """
    data = setup.config.data
    images = evaluation_images(data, evaluation_preprocessing(setup), progress, shared=True)
    if images.labels is not None and len(images.labels):
        check_labels(int(images.labels.max()), data.evaluation, setup.model.config.num_classes)
    return images


def evaluation_images(
    data: DataConfig, preprocessing: Preprocessing, progress: Progress, *, shared: bool = False
) -> Images:
    """The evaluation images that a config's section names. Labels are not checked.

    Raises:
      UserError: as `load_images`.
    """
    return load_images(
        data.evaluation,
        preprocessing,
        class_index=data.class_index,
        num=data.num_evaluation,
        seed=0,
        cache_dir=data.cache,
        cache_gib=data.cache_gib,
        on_corrupt=data.on_corrupt,
        tfds_dir=data.tfds_dir,
        progress=progress,
        shared=shared,
    )


def evaluation_preprocessing(setup: Setup) -> Preprocessing:
    """How evaluation images are resized and cropped.

    Raises:
      UserError: `data.evaluation_resize` is below the network's image size.
    """
    resize = setup.config.data.evaluation_resize
    preprocessing = setup.model.preprocessing
    if resize == "checkpoint":
        return preprocessing
    if resize is not None and resize < preprocessing.size:
        raise UserError(
            f"data.evaluation_resize ({resize}) is below the network's image size ({preprocessing.size})"
        )
    return replace(preprocessing, resize=resize)
