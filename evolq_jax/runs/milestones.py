"""How good a run was on its way: the scales it had at shares of its budget, scored once it has ended."""

import json
import math
from typing import Any

from evolq_jax.quant.qparams import QParams
from evolq_jax.runs.directory import RunDirectory

MILESTONES = "milestones.json"


class Milestones:
    """Keeps the best scales as they were when each share of the budget had been spent.

    What is kept measures and selects nothing. A continued run keeps the same again.
    """

    def __init__(self, run: RunDirectory, count: int, budget: float) -> None:
        """`count - 1` milestones, evenly on the way to the budget's end."""
        self._run = run
        self._marks = [budget * number / count for number in range(1, count)]
        self._last: tuple[float, float, QParams] | None = None

    def offer(self, spent: float, fitness: float, qparams: QParams) -> None:
        """What the run has once `spent` candidate-images are spent; first what it begins with."""
        if self._last is not None:
            before, *_ = self._last
            for number, mark in enumerate(self._marks):
                if before <= mark < spent:
                    self._write(number, mark, *self._last[1:])
        self._last = spent, fitness, qparams

    def _write(self, number: int, mark: float, fitness: float, qparams: QParams) -> None:
        self._run.write_qparams(_file(number), qparams)
        known = _read(self._run)[:number]
        # Before the first visit the fitness is not known yet; the scales are those of the start.
        known_fitness = {"calibration_fitness": fitness} if math.isfinite(fitness) else {}
        self._run.write_json(MILESTONES, [*known, known_fitness | {"candidate_images": mark}])


def read_milestones(run: RunDirectory) -> tuple[list[dict[str, Any]], list[QParams]]:
    """Of every milestone passed: budget and calibration fitness, and the scales.

    Raises:
      UserError: a file is damaged.
    """
    entries = _read(run)
    return entries, [run.read_qparams(_file(number)) for number in range(len(entries))]


def _read(run: RunDirectory) -> list[dict[str, Any]]:
    return json.loads(run.read(MILESTONES)) if run.has(MILESTONES) else []


def _file(number: int) -> str:
    return f"milestone_{number + 1}.safetensors"
