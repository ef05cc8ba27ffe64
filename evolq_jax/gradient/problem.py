"""What stays the same during a descent: the problem, which is static, and its arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import optax

from evolq_jax.errors import UserError
from evolq_jax.gradient.config import BACKWARD, BaselineConfig, Parametrization
from evolq_jax.gradient.optimizers import make_optimizer
from evolq_jax.network.parts import ModelParts
from evolq_jax.objective.objective import Objective, Teacher
from evolq_jax.quant.gradients import Sharing, elements_sharing
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.spec import Specs
from evolq_jax.search.config import SearchConfig
from evolq_jax.search.space import searched_sites
from evolq_jax.typing import Array, Params, SiteInfo


@dataclass(frozen=True)
class ScaleLoss:
    """The fitness as a function of scales, without its arrays. Its programs are compiled for this record.

    Attributes:
      parts: the network's functions.
      specs: its quantizers.
      sites: the sites whose scales move.
      objective: the fitness.
      image_chunk: images that run at once.
      parametrization: the form in which scales move.
      sharing: elements that share a scale, for each site whose gradient has LSQ's factor
        (`quant.gradients.elements_sharing`).
    """

    parts: ModelParts
    specs: Specs
    sites: tuple[str, ...]
    objective: Objective
    image_chunk: int
    parametrization: Parametrization = "log"
    sharing: Sharing = ()


@dataclass(frozen=True)
class Problem:
    """What a descent does, without its arrays. Frozen and hashable.

    Attributes:
      config: the settings.
      loss: what is minimised.
      num_images: B, all calibration images.
      num_held_out: how many of them are held out. These come last, and only decide on the result.
      minibatch: images of a step.
      budget: candidate-images. What is found beyond it does not count.
    """

    config: BaselineConfig
    loss: ScaleLoss
    num_images: int
    num_held_out: int
    minibatch: int
    budget: int

    @property
    def num_searched(self) -> int:
        """The number of images that the descent minimises the fitness on. They come first."""
        return self.num_images - self.num_held_out

    @property
    def gradient_cost(self) -> int:
        """The candidate-images of a mini-batch's fitness and gradient, by a backward pass."""
        return (1 + BACKWARD) * self.minibatch

    @property
    def step_cost(self) -> int:
        """The candidate-images of a step. Points that a line search tries cost more, see `step`."""
        if self.config.gradient == "spsa":
            return 2 * self.config.spsa_samples * self.minibatch
        return self.gradient_cost

    @property
    def num_steps(self) -> int:
        """About how many steps the budget pays for, together with their evaluations."""
        return max(1, int(self.budget / (self.step_cost + self.num_images / self.config.evaluate_every)))

    @property
    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """The optimiser. Equal problems have the same object."""
        return make_optimizer(self.config, self.num_steps)


class Data(NamedTuple):
    """The arrays that stay the same during a descent."""

    params: Params  # float, after calibration's chain
    start: QParams  # of all sites, where the descent begins
    tokens: Array  # the calibration images at the first segment's entry, quantized [B, ...]
    teacher: Teacher  # on the same images
    temperature: Array | float = 3.0  # of infoNCE


def make_problem(
    config: BaselineConfig,
    search: SearchConfig,
    parts: ModelParts,
    specs: Specs,
    *,
    sites: Mapping[str, SiteInfo],
    num_images: int,
    budget: int,
) -> Problem:
    """The problem of a network and a number of calibration images.

    Args:
      config: the settings of the descent.
      search: gives the sites, the fitness, the contrastive batch, the holdout and the image chunk.
      parts: the network's functions.
      specs: its quantizers, resolved.
      sites: its quantization points.
      num_images: B, those held out included.
      budget: candidate-images.

    Raises:
      UserError: a pattern matches no site, the optimiser is unknown, the fitness is about a single block,
        there are too few images to hold some out, the mini-batch is not made of whole contrastive batches,
        or the budget does not pay for a step.
    """
    search = search.fitted(num_images)
    num_held_out = search.num_held_out(num_images)
    objective, _ = search.objectives()
    objective.check_whole()
    chosen = searched_sites(parts, specs, search.sites)
    moving = tuple((name, spec) for name, spec in specs if name in chosen)
    loss = ScaleLoss(
        parts=parts,
        specs=specs,
        sites=chosen,
        objective=objective,
        image_chunk=search.chunks()[0],
        parametrization=config.parametrization,
        sharing=elements_sharing(moving, sites) if config.lsq_scaling else (),
    )
    problem = Problem(
        config=config,
        loss=loss,
        num_images=num_images,
        num_held_out=num_held_out,
        minibatch=config.minibatch or num_images - num_held_out,
        budget=budget,
    )
    make_optimizer(config, problem.num_steps)  # refuses an unknown name
    _check_minibatch(problem, search.batch_size or 1)
    _check_budget(problem)
    return problem


def _check_minibatch(problem: Problem, batch_size: int) -> None:
    """Refuses mini-batches that are not made of whole contrastive batches, or are too large."""
    number, available = problem.minibatch, problem.num_searched
    if number > available or number % batch_size:
        raise UserError(
            f"baseline.minibatch ({number}) must be a multiple of search.batch_size ({batch_size}) "
            f"and at most the {available} images searched on"
        )


def _check_budget(problem: Problem) -> None:
    """Refuses a budget that does not pay for two evaluations and a step between them."""
    needed = 2 * problem.num_images + problem.step_cost
    if problem.budget < needed:
        raise UserError(
            f"a budget of {problem.budget} candidate-images is below the {needed} of two evaluations and a "
            "step: raise baseline.budget, or lower baseline.minibatch"
        )
