"""A machine's speed as plans in tests have it: round numbers, and nothing is timed or traced."""

import pytest

from evolq_jax.devices.work import Work
from evolq_jax.pipeline.speed import Speed
from evolq_jax.pipeline.work import InputBytes, Traced

SPEED = Speed(floating=100.0, quantized=80.0, products=1e9, elements=1e8, compiling=0.5, size=25)
CALIBRATION = Work(3e9, 2e8, held=2**20, programs=(25, 100))
TRACED = Traced(CALIBRATION, Work(1e6, 1e5, held=2**18, programs=(25,)), InputBytes(2**14, 2**12))


def without_timing(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """Lets a verb's plan take these."""
    plan = f"evolq_jax.verbs.{verb}.plan"
    monkeypatch.setattr(f"{plan}.monotonic", lambda: 0.0, raising=False)
    monkeypatch.setattr(f"{plan}.measure_speed", lambda setup, batch: SPEED)
    if verb == "search":
        monkeypatch.setattr(f"{plan}.trace", lambda setup, num_images: TRACED)
