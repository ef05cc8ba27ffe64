"""A comparison: methods that start from the same init and have the same seeds and budget."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from evolq_jax.config.experiment import Experiment, SearchConfig
from evolq_jax.errors import UserError, check_choices, suggestion

Stage = Literal["search", "baseline"]


@dataclass(frozen=True)
class Method:
    """A method: one line of the table.

    Attributes:
      name: the name of its run directories and of its line.
      config: the experiment. The comparison's seeds replace its seed.
      stages: what improves the scales, in order. Each stage begins where the one before ended, and has an
        equal share of the budget.
    """

    name: str
    config: Experiment
    stages: tuple[Stage, ...] = ("search",)


@dataclass(frozen=True)
class Comparison:
    """Methods that are compared over seeds.

    Attributes:
      name: the name of the comparison's directory.
      methods: the methods.
      reference: the method with which the others are compared, seed by seed; None: only with the init.
      seeds: each one draws calibration images and drives the methods.
      budget: candidate-images that each run may spend; None: what the first method's config would spend.
      milestones: the number of parts of the budget. Scales are scored after each part, for the picture.
    """

    name: str
    methods: tuple[Method, ...]
    reference: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    budget: int | None = None
    milestones: int = 4

    def __post_init__(self) -> None:
        """Rejects settings that are wrong for every config."""
        check_choices(self)
        if not self.name or Path(self.name).name != self.name:
            raise UserError(f"name '{self.name}' must be a plain word: the directory is called after it")
        names = [method.name for method in self.methods]
        for name in names:
            if not name or Path(name).name != name:
                raise UserError(f"method name '{name}' must be a plain word: a directory is called after it")
            if names.count(name) > 1:
                raise UserError(f"two methods are called '{name}': names must differ")
        if not self.methods:
            raise UserError("there is no method to compare")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError("seeds must be given, each once")
        if self.budget is not None and self.budget < 1:
            raise UserError(f"budget must be at least 1, not {self.budget}")
        if self.milestones < 1:
            raise UserError(f"milestones must be at least 1, not {self.milestones}")
        if self.reference is not None and self.reference not in names:
            hint = suggestion(self.reference, names)
            raise UserError(f"reference '{self.reference}' is no method{hint} (there are {', '.join(names)})")


def join(parts: Iterable[Experiment | Comparison]) -> Comparison:
    """Joins experiments and comparisons into one comparison. An experiment is a search under its own name.

    Raises:
      UserError: two methods have the same name.
    """
    parts = list(parts)
    methods: list[Method] = []
    for part in parts:
        methods += [Method(part.name, part)] if isinstance(part, Experiment) else part.methods
    first = next((part for part in parts if isinstance(part, Comparison)), None)
    if first is not None:
        return replace(first, methods=tuple(methods))
    return Comparison("comparison", tuple(methods))


def greedy(search: SearchConfig) -> SearchConfig:
    """The search as a walk like that of the released code: one child at a time, relative steps."""
    return replace(
        search,
        algorithm="EvolQ",
        output_start=False,
        parametrization="raw",
        population_size=1,
        pool_size=1,
        tournament_size=1,
        mutation="relative",
        epsilon=0.05,
    )
