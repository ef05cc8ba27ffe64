"""The one place that reads what lies beside a checkpoint's weights: config.json, preprocessor_config.json.

They state properties of the checkpoint, not of the architecture. So they have priority over the registry.
"""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from evolq_jax.errors import UserError
from evolq_jax.json_text import read_object
from evolq_jax.models.reading.facts import Facts, apply_facts, warn_of_unknown
from evolq_jax.models.reading.hugging_face_config import is_transformers, read_model, read_processor
from evolq_jax.models.reading.timm_config import is_timm, read_timm
from evolq_jax.typing import Preprocessing

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"

_log = logging.getLogger(__name__)


def read_sidecars(folder: Path, config: Any, usual: Preprocessing) -> Facts:
    """What the files in a folder say of the weights there. Keys that nobody knows are warned of.

    Args:
        folder: where the weights lie.
        config: of the model, whose fields say what can be set.
        usual: the registry's preprocessing, for what the files leave out.

    Raises:
        UserError: a file is not readable; or a key has a value that is wrong, or that we cannot follow.
    """
    path, processor = folder / CONFIG, folder / PROCESSOR
    facts = Facts(path)
    if path.is_file():
        settings = read_object(path)
        with _named(path):
            if is_timm(settings):
                facts = read_timm(path, settings, config, usual)
            elif is_transformers(settings):
                facts = Facts(path, model=read_model(path, settings, config))
            else:
                warn_of_unknown(path, settings, ())
    if not processor.is_file():
        return facts
    if facts.preprocessing:
        _log.warning("%s: not read, since %s says how images are prepared", processor, CONFIG)
        return facts
    settings = read_object(processor)
    with _named(processor):
        return replace(facts, preprocessing=(read_processor(processor, settings, usual),))


def apply_sidecars(facts: Facts, config: Any, image_size: int) -> Any:
    """The config with what the files say; as `apply_facts`, with the file's name in errors."""
    with _named(facts.where):
        return apply_facts(config, facts.model, image_size)


@contextmanager
def _named(path: Path) -> Generator[None, None, None]:
    """Puts the name of the file before what is wrong in it."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{path}: {error}: correct it, or move the file away if it belongs to other weights"
        ) from None
