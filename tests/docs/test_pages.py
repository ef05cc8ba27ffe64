"""The Python of the README and of docs/extending.md runs as a reader would paste it, block after block."""

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Page(NamedTuple):
    name: str
    longest: int  # lines that a block may have


PAGES = (Page("README.md", 15), Page("docs/extending.md", 30))


def blocks(page: Page) -> list[str]:
    return BLOCK.findall((ROOT / page.name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_short(page: Page) -> None:
    assert blocks(page)
    for block in blocks(page):
        lines = [line for line in block.splitlines() if line.strip()]
        assert len(lines) <= page.longest, block


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    names: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page.name}, block {number + 1}", "exec"), names)
