"""How good a run was on its way: the scales it had at shares of its budget, scored once it has ended."""

import math
from dataclasses import dataclass

from evolq_jax.errors import UserError
from evolq_jax.json_text import parse_json
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs
from evolq_jax.runs.directory import RunDirectory
from evolq_jax.runs.typed_json import from_plain

MILESTONES = "milestones.json"


@dataclass(frozen=True)
class Milestone:
    """A time on the way of a run.

    Attributes:
      candidate_images: the share of the budget that had been spent.
      calibration_fitness: of the best scales until then; None: those of the start, not scored yet.
    """

    candidate_images: float
    calibration_fitness: float | None = None


class Milestones:
    """Keeps the best scales as they were when each share of the budget had been spent.

    What is kept measures and selects nothing. A continued run keeps the same again.
    """

    def __init__(self, run: RunDirectory, specs: Specs, count: int, budget: float) -> None:
        """`count - 1` milestones, evenly on the way to the budget's end."""
        self._run, self._specs = run, specs
        self._marks = [budget * number / count for number in range(1, count)]
        self._last: tuple[float, float, QParams] | None = None

    def offer(self, spent: float, fitness: float, qparams: QParams) -> None:
        """What the run has once `spent` candidate-images are spent; first what it begins with."""
        if self._last is not None:
            before, last_fitness, last_qparams = self._last
            known = last_fitness if math.isfinite(last_fitness) else None
            for number, mark in enumerate(self._marks):
                if before <= mark < spent:
                    self._write(number, Milestone(mark, known), last_qparams)
        self._last = spent, fitness, qparams

    def _write(self, number: int, reached: Milestone, qparams: QParams) -> None:
        self._run.write_qparams(_file(number), self._specs, qparams)
        self._run.write_json(MILESTONES, [*_read(self._run)[:number], reached])


def read_milestones(run: RunDirectory, specs: Specs, blank: QParams) -> list[tuple[Milestone, QParams]]:
    """Every milestone passed, with its scales (see `RunDirectory.read_qparams`).

    Raises:
      UserError: a file is damaged.
    """
    return [
        (passed, run.read_qparams(_file(number), specs, blank)) for number, passed in enumerate(_read(run))
    ]


def _read(run: RunDirectory) -> list[Milestone]:
    if not run.has(MILESTONES):
        return []
    where = f"'{run.path / MILESTONES}'"
    entries = parse_json(run.read(MILESTONES), where)
    if not isinstance(entries, list):
        raise UserError(f"{where} is damaged: a JSON list is expected; start anew")
    return [from_plain(entry, Milestone, where, "milestone") for entry in entries]


def _file(number: int) -> str:
    return f"milestone_{number + 1}.safetensors"
