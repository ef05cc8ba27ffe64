"""A continued run tells where the programs that it began with are lost."""

import logging
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from evolq_jax.notes import say_once
from evolq_jax.runs.directory import RunDirectory
from evolq_jax.runs.provenance import Provenance, changes, lost_programs
from evolq_jax.runs.unfinished import check_unchanged

THEN = Provenance(
    fingerprints={"weights": "a"},
    device="cpu",
    mesh={},
    processes=1,
    versions={"jax": "1"},
    compiled_programs="first",
)


@pytest.mark.parametrize(
    ("then", "now", "lost"),
    [("first", "first", False), ("first", "second", True), ("first", "", True), ("", "", True)],
)
def test_programs_are_lost_elsewhere_than_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, then: str, now: str, lost: bool
) -> None:
    before, after = replace(THEN, compiled_programs=then), replace(THEN, compiled_programs=now)
    assert changes(before, after) == []
    assert not lost_programs(before, after)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert lost_programs(before, after) == lost


def test_who_goes_on_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    say_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="evolq_jax"):
        check_unchanged(RunDirectory(tmp_path), "search", THEN, replace(THEN, compiled_programs="second"))
    assert "last bits" in caplog.text
