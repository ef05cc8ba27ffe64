"""An elitist (1 + lambda) search with a step size that adapts, as an evosax algorithm."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from evosax.algorithms.population_based.base import Params as BaseParams
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from evosax.algorithms.population_based.base import State as BaseState
from flax import struct

from evolq_jax.search.algorithms.base import Algorithm
from evolq_jax.typing import Array

SUCCESS = 0.2  # share of children better than their parent at which the step size stays

StepSize = Literal["one_fifth", "self_adaptive"]


@struct.dataclass
class State(BaseState):
    """The parent (population [1, D], fitness [1]) and the standard deviation of its children."""

    sigma: Array
    child_sigmas: Array  # [population_size]: each child's own, where it has one


@struct.dataclass
class Params(BaseParams):
    """Traced settings: the first standard deviation, and the probability that a coordinate moves."""

    sigma: Array | float
    density: Array | float


class OnePlusLambda(PopulationBasedAlgorithm):
    """The best of a parent and its `population_size` children is the next parent.

    A child is the parent plus normal noise. Each coordinate moves with probability `density`, and at least
    one moves. With `antithetic`, children come in pairs on opposite sides of the parent.

    `one_fifth`: the step size follows the 1/5 rule (Rechenberg 1973) in the smooth form of Hansen, Arnold and
    Auger ("Evolution Strategies", 2015): `sigma exp((share of better children - 1/5) rate)`. Their (1 + 1)
    has the rate 1 / sqrt(D + 1). Here a generation counts as lambda such steps, up to a rate of 1.

    `self_adaptive`: each child, or each pair, has its own step size, `sigma exp(N(0, 1) / sqrt(D))`. A child
    keeps it when it becomes the parent (Beyer and Schwefel, "Evolution strategies", 2002). As long as no
    child is better, the step size does not change.

    Solutions are any tree without bounds. Initialise with the evaluated start, once.
    """

    def __init__(
        self,
        population_size: int,
        solution: Any,
        *,
        antithetic: bool = False,
        step_size: StepSize = "one_fifth",
    ) -> None:
        """Static settings. Numbers that one sweeps are in `Params`."""
        if antithetic and population_size % 2:
            raise ValueError("antithetic children come in pairs: an even number is needed")
        super().__init__(population_size, solution)
        self.antithetic = antithetic
        self.step_size = step_size

    @property
    def rate(self) -> float:
        """How fast the step size adapts."""
        return min(1.0, self.population_size / (self.num_dims + 1) ** 0.5)

    @property
    def _default_params(self) -> Params:
        return Params(sigma=1.0, density=1.0)

    def _init(self, key: Array, params: Params) -> State:
        del key
        return State(
            population=jnp.full((1, self.num_dims), jnp.nan),
            fitness=jnp.full((1,), jnp.inf),
            best_solution=jnp.full((self.num_dims,), jnp.nan),
            best_fitness=jnp.inf,  # type: ignore[arg-type]
            generation_counter=0,
            sigma=jnp.float32(params.sigma),
            child_sigmas=jnp.full(self.population_size, params.sigma, jnp.float32),
        )

    def _ask(self, key: Array, state: State, params: Params) -> tuple[Array, State]:
        noise_key, mask_key = jax.random.split(key)
        shape = (self.population_size // (2 if self.antithetic else 1), self.num_dims)
        draws = jax.random.uniform(mask_key, shape)
        moves = (draws < params.density) | (draws == draws.min(axis=1, keepdims=True))
        sigma = state.sigma
        if self.step_size == "self_adaptive":
            factors = jnp.exp(
                jax.random.normal(jax.random.fold_in(key, 2), (shape[0], 1)) / self.num_dims**0.5
            )
            sigma = state.sigma * factors
            own = jnp.tile(sigma[:, 0], 2 if self.antithetic else 1)
            state = state.replace(child_sigmas=own)  # type: ignore[attr-defined]
        noise = jnp.where(moves, sigma * jax.random.normal(noise_key, shape), 0.0)
        if self.antithetic:
            noise = jnp.concatenate([noise, -noise])
        return state.population + noise, state

    def _tell(self, key: Array, population: Array, fitness: Array, state: State, params: Params) -> State:
        del key, params
        fitness = jnp.where(jnp.isnan(fitness), jnp.inf, fitness)
        best = jnp.argmin(fitness)
        better = fitness[best] < state.fitness[0]
        if self.step_size == "self_adaptive":
            sigma = jnp.where(better, state.child_sigmas[best], state.sigma)
        else:
            success = jnp.mean(fitness < state.fitness[0])
            sigma = state.sigma * jnp.exp(self.rate * (success - SUCCESS))
        return state.replace(  # type: ignore[attr-defined]
            population=jnp.where(better, population[best][None], state.population),
            fitness=jnp.where(better, fitness[best][None], state.fitness),
            sigma=sigma,
        )


ONE_PLUS_LAMBDA = Algorithm(
    "OnePlusLambda",
    "the best of a parent and its children, with an adaptive step size",
    lambda config, solution: OnePlusLambda(
        config.population_size, solution, antithetic=config.antithetic, step_size=config.step_size
    ),
    set_params=lambda config, params: params.replace(density=jnp.float32(config.density)),
    copies=lambda algorithm: 1,
)
