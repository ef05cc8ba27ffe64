"""A comparison: methods that start from the same calibrated network, with the same seeds and budget."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, get_args

from evolq_jax.config.experiment import Experiment, SearchConfig
from evolq_jax.errors import UserError, check_choices, suggestion
from evolq_jax.paths import is_plain_word

Stage = Literal["search", "baseline"]
# Parts of an experiment that decide where methods start, and what they are scored on.
Start = Literal["model", "preprocessing", "data", "quant", "calibration", "start", "precision"]
CALIBRATED = "calibrated"  # the directory, beside those of the methods, of what they start from


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
      varies: parts of the configs in which methods differ on purpose, as presets do in `quant` and
        `calibration`. In all others a difference is an error: methods would not start equal.
    """

    name: str
    methods: tuple[Method, ...]
    reference: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    budget: int | None = None
    milestones: int = 4
    varies: tuple[Start, ...] = ()

    def __post_init__(self) -> None:
        """Rejects settings that are wrong for every config."""
        check_choices(self)
        if not is_plain_word(self.name):
            raise UserError(f"name '{self.name}' must be a plain word: the directory is called after it")
        names = [method.name for method in self.methods]
        for name in names:
            if not is_plain_word(name):
                raise UserError(f"method name '{name}' must be a plain word: a directory is called after it")
            if name == CALIBRATED:
                raise UserError(
                    f"method name '{name}' is taken: the network that methods start from is there"
                )
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
        self._check_start()
        self._check_budgets()

    def _check_start(self) -> None:
        """Refuses methods that start from other networks, or are scored on other images."""
        first = self.methods[0]
        for method in self.methods[1:]:
            for part in get_args(Start):
                own, other = getattr(first.config, part), getattr(method.config, part)
                if part not in self.varies and own != other:
                    raise UserError(
                        f"methods '{first.name}' and '{method.name}' would not start equal: they differ in "
                        f"{_difference(part, own, other)}. Make it the same, or say that it is meant: "
                        f"varies=('{part}',) in a comparison's file, --vary {part} where files are joined"
                    )

    def _check_budgets(self) -> None:
        """Refuses budgets of single methods: the comparison has one for all."""
        for method in self.methods:
            for name, own in (("search", method.config.search), ("baseline", method.config.baseline)):
                if name in method.stages and own.budget not in (None, self.budget):
                    raise UserError(
                        f"method '{method.name}' has {name}.budget {own.budget}, but all methods of a "
                        f"comparison have the same: set {name}.budget to None, and the comparison's budget "
                        "or --budget"
                    )


def _difference(part: str, own: Any, other: Any) -> str:
    """The first field in which two parts differ."""
    if not is_dataclass(own):
        return f"`{part}` ({own} and {other})"
    for field in fields(own):
        values = getattr(own, field.name), getattr(other, field.name)
        if values[0] != values[1]:
            return f"`{part}.{field.name}` ({values[0]} and {values[1]})"
    return f"`{part}`"


def join(parts: Iterable[Experiment | Comparison], varies: tuple[Start, ...] = ()) -> Comparison:
    """Joins experiments and comparisons into one comparison. An experiment is a search under its own name.

    Args:
      parts: what is joined. The first comparison gives all but the methods.
      varies: parts of the configs in which methods differ on purpose, beside those of the comparisons.

    Raises:
      UserError: two methods have the same name, or methods would not start equal.
    """
    parts = list(parts)
    methods: list[Method] = []
    for part in parts:
        methods += [Method(part.name, part)] if isinstance(part, Experiment) else part.methods
    first = next((part for part in parts if isinstance(part, Comparison)), None)
    if first is not None:
        return replace(first, methods=tuple(methods), varies=tuple(dict.fromkeys(first.varies + varies)))
    budgets = {method.config.search.budget for method in methods}
    budget = budgets.pop() if len(budgets) == 1 else None
    return Comparison("comparison", tuple(methods), budget=budget, varies=varies)


def greedy(search: SearchConfig) -> SearchConfig:
    """The search as a walk like that of the released code: one child at a time, relative steps."""
    return replace(
        search,
        algorithm="EvolQ",
        parametrization="raw",
        population_size=1,
        pool_size=1,
        tournament_size=1,
        mutation="relative",
        epsilon=0.05,
    )
