import sys
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
        assert "model.safetensors" in allow_patterns
        asked.append((repo, revision))
        return str(tmp_path)

    save_file(timm_vit(TINY), tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot))
    assert load_checkpoint("tiny", path).config.num_classes == 5
    assert asked == [(repo, revision)]


def test_a_bare_repository_name_is_taken_for_a_path() -> None:
    with pytest.raises(UserError, match="hub repositories are written hf-hub:owner/name"):
        load_checkpoint("tiny", "someone/tiny")
