"""The settings of a descent."""

from dataclasses import dataclass
from typing import Literal

from evolq_jax.errors import UserError

BACKWARD = 2  # a backward pass counts as this many forward passes

Parametrization = Literal["raw", "log", "log_per_tensor"]  # gradients need no grouping of channels


@dataclass(frozen=True)
class BaselineConfig:
    """How scales descend. Sites, fitness, contrastive batch, holdout and teacher are those of the search.

    Attributes:
      optimizer: the name of an optax optimiser: `adam`, `adamw`, `sgd`, `lion`, `lbfgs`, ...
      learning_rate: the first learning rate. `lbfgs` finds its steps by a line search instead.
      momentum: of optimisers that have one (`sgd`, `rmsprop`, `lars`, ...).
      schedule: how the learning rate changes over the budget: `constant`, `cosine` or `linear`, the last two
        to zero.
      warmup: share of the steps in which the learning rate rises from zero.
      clip: largest norm of the gradient over all scales; None: no limit.
      gradient: `straight_through`: rounding passes gradients, and scales have LSQ's gradient. `spsa`:
        differences along random signs (Spall 1992), without a backward pass.
      lsq_scaling: whether gradients have LSQ's factor 1 / sqrt(elements per scale x largest integer) (Esser
        et al. 2020, section 2.2).
      spsa_radius: half the distance between the two points of an SPSA sample.
      spsa_samples: pairs of points that a step averages.
      parametrization: what moves: `log` ratios to the start, one log ratio for each tensor
        (`log_per_tensor`), or `raw` scales.
      minibatch: images of a step, in whole contrastive batches; None: all images that are searched on.
      budget: in candidate-images. The forward pass of one image counts 1, its backward pass 2. None: the
        budget of the search in this config.
      evaluate_every: steps between two evaluations of the quantized network. The budget pays for them too.
    """

    optimizer: str = "adam"
    learning_rate: float = 0.01
    momentum: float = 0.9
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warmup: float = 0.0
    clip: float | None = None
    gradient: Literal["straight_through", "spsa"] = "straight_through"
    lsq_scaling: bool = True
    spsa_radius: float = 0.05
    spsa_samples: int = 1
    parametrization: Parametrization = "log"
    minibatch: int | None = None
    budget: int | None = None
    evaluate_every: int = 5

    def __post_init__(self) -> None:
        """Rejects sizes that mean nothing."""
        for name in ("spsa_samples", "minibatch", "budget", "evaluate_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"baseline.{name} must be at least 1, not {value}")
        for name in ("learning_rate", "spsa_radius", "clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"baseline.{name} must be positive, not {value}")
        for name in ("momentum", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"baseline.{name} must be from 0 to below 1, not {getattr(self, name)}")
        if self.optimizer == "lbfgs" and (self.gradient, self.minibatch) != ("straight_through", None):
            raise UserError(
                "baseline.optimizer lbfgs searches along lines of one function: "
                "set baseline.gradient straight_through and baseline.minibatch None"
            )
