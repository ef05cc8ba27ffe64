"""Small real data sets of tensorflow-datasets, prepared on disk without TensorFlow and network."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

Example = Mapping[str, Any]


def prepare(
    data_dir: Path, splits: Mapping[str, Iterable[Example]], make_features: Any, num_shards: int = 2
) -> Path:
    """Prepares the set `tiny_set`, version 1.0.0, as its authors would; returns its folder.

    Args:
        data_dir: of tensorflow-datasets.
        splits: examples by split, kept in this order; images as open files (arrays need TensorFlow).
        make_features: from the module's `features` to the set's.
        num_shards: of each split.
    """
    pytest.importorskip("array_record", reason="not there on Windows")
    import tensorflow_datasets as tfds

    class TinySet(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        VERSION = tfds.core.Version("1.0.0")
        name = "tiny_set"

        def _info(self) -> Any:
            return self.dataset_info_from_configs(
                features=make_features(tfds.features), disable_shuffling=True
            )

        def _split_generators(self, _: Any) -> Any:
            return {name: self._generate_examples(examples) for name, examples in splits.items()}

        def _generate_examples(self, examples: Iterable[Example]) -> Iterator[tuple[int, Example]]:
            yield from enumerate(examples)

    tfds.disable_progress_bar()
    builder = TinySet(data_dir=data_dir, file_format="array_record")
    config = tfds.download.DownloadConfig(num_shards=num_shards, try_download_gcs=False)
    builder.download_and_prepare(download_config=config)
    return Path(builder.data_dir)
