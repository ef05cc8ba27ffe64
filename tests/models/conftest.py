from dataclasses import replace

import pytest

from evolq_jax.models.registry import REGISTRY, VIT, Entry
from evolq_jax.typing import Preprocessing
from tests.models.seeded import TINY


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers `tiny` and `tiny_distilled`, the models that tests write files of."""
    for config in (TINY, replace(TINY, distilled=True)):
        name = "tiny_distilled" if config.distilled else "tiny"
        monkeypatch.setitem(REGISTRY, name, Entry(name, VIT, config, Preprocessing(8, 9)))
