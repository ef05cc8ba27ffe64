"""docs/models.md says which of timm's names load: each with timm's keys and shapes."""

import json
from pathlib import Path

import pytest

from evolq_jax.models.registry import REGISTRY
from studies.timm import names
from studies.timm.shapes import RECORDED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def test_the_page_is_what_the_script_makes(capsys: pytest.CaptureFixture[str]) -> None:
    names.main()  # it raises where keys or shapes are not timm's
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8")


def test_every_name_that_is_refused_has_a_reason() -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    refused = {name: row for name, row in recorded.items() if name != "version" and name not in REGISTRY}
    assert len(refused) > 100
    assert all(row["unusual"] for row in refused.values())


def test_other_shapes_are_not_passed_over() -> None:
    with pytest.raises(ValueError, match="resnet18: the registry's keys or shapes are not timm's"):
        names.loads("resnet18", "0123456789")
