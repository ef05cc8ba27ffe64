"""A config whose paths mean the same from every folder, as a run keeps it."""

import os
from dataclasses import replace

from evolq_jax.config.experiment import Experiment
from evolq_jax.data.load import absolute_source
from evolq_jax.models.reading.hub import is_hub_path
from evolq_jax.paths import user_path


def absolute(config: Experiment) -> Experiment:
    """The config with all paths absolute and `~` expanded. Names such as `digits:train` stay.

    Raises:
      UserError: a path is one that there cannot be.
    """
    data, model, landscape = config.data, config.model, config.landscape
    weights = model.weights
    if weights is not None and not is_hub_path(weights):
        weights = _absolute(weights, "model.weights")
    return replace(
        config,
        model=replace(model, weights=weights),
        data=replace(
            data,
            calibration=absolute_source(data.calibration),
            evaluation=absolute_source(data.evaluation),
            class_index=_path(data.class_index, "data.class_index"),
            tfds_dir=_path(data.tfds_dir, "data.tfds_dir"),
            cache=data.cache if data.cache == "auto" else _path(data.cache, "data.cache"),
        ),
        landscape=replace(
            landscape,
            towards=_path(landscape.towards, "landscape.towards"),
            results=tuple(_absolute(each, "landscape.results") for each in landscape.results),
        ),
        start=_path(config.start, "start"),
    )


def _path(given: str | None, what: str) -> str | None:
    return None if given is None else _absolute(given, what)


def _absolute(given: str, what: str) -> str:
    return os.path.abspath(user_path(given, what))
