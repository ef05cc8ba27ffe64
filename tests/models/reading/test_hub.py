import json
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.numpy import save_file

from evolq_jax.errors import UserError
from evolq_jax.models.checkpoint import load_checkpoint
from tests.models.seeded import TINY, timm_vit


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'evolq_jax\[hub\]'"):
        load_checkpoint("tiny", "hf-hub:someone/tiny")


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise ConnectionError("no route to host\nmore lines")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=fail))
    with pytest.raises(UserError, match=r"download failed \(no route to host\)") as caught:
        load_checkpoint("tiny", "hf-hub:someone/tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "repo", "revision"),
    [
        ("hf-hub:someone/tiny.tag", "someone/tiny.tag", None),
        ("hf_hub:someone/tiny@v1", "someone/tiny", "v1"),
    ],
)
def test_the_snapshot_is_loaded(
    path: str, repo: str, revision: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def snapshot(repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert {"model.safetensors", "model.safetensors.index.json", "config.json"} <= {*allow_patterns}
        assert any(fnmatch("model-00001-of-00002.safetensors", pattern) for pattern in allow_patterns)
        asked.append((repo, revision))
        return str(tmp_path)

    save_file(timm_vit(TINY), tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot))
    assert load_checkpoint("tiny", path).config.num_classes == 5
    assert asked == [(repo, revision)]


def test_a_bare_repository_name_is_taken_for_a_path() -> None:
    with pytest.raises(UserError, match="hub repositories are written hf-hub:owner/name"):
        load_checkpoint("tiny", "someone/tiny")


def test_shards_of_a_repository_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, shards = timm_vit(TINY), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    holder = {key: shards[key.startswith("blocks.")] for key in weights}
    for shard in shards:
        save_file({key: array for key, array in weights.items() if holder[key] == shard}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": holder}))
    hub = SimpleNamespace(snapshot_download=lambda *_, **__: str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert load_checkpoint("tiny", "hf-hub:someone/tiny").config.num_classes == 5


def test_a_repository_without_weights_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = SimpleNamespace(snapshot_download=lambda *_, **__: str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(UserError, match=r"^hf-hub:someone/tiny: the folder holds no \.safetensors"):
        load_checkpoint("tiny", "hf-hub:someone/tiny")
