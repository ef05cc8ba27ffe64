"""The verb `classify`: the classes that an exported file sees in pictures, by its own runtime."""

from collections.abc import Sequence
from pathlib import Path

from evolq_jax.data.pictures import decode_pictures, list_pictures
from evolq_jax.integers.exported import RUNTIMES, in_batches, open_exported
from evolq_jax.pipeline.watcher import Silent, Watcher
from evolq_jax.verbs.predict import PredictionResult, check_top, likeliest

BATCH = 50


def run_classify(
    path: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    watcher: Watcher | None = None,
) -> PredictionResult:
    """Classifies pictures with an exported file.

    Args:
      path: what `evolq export` wrote.
      images: files, and folders of files.
      top: how many classes to name.
      watcher: told of the progress.

    Raises:
      UserError: there is no such file or picture, one was changed or cannot be read, or the file's runtime
        is not installed.
    """
    watcher = watcher or Silent()
    check_top(top)
    files, exported = list_pictures(images), open_exported(path)
    pixels = decode_pictures(files, exported.preprocessing, watcher.stage("decoding pictures"))
    runtime = RUNTIMES[exported.format]
    logits = in_batches(exported.run, pixels, BATCH, watcher.stage(f"running {runtime}"))
    return PredictionResult(
        network=runtime,
        predictions=tuple(likeliest(files, logits, top)),
        class_names=exported.about.class_names,
    )
