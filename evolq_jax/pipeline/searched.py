"""What of a network a search may vary, and what would stop it."""

from typing import Any

import jax
import numpy as np

from evolq_jax.errors import UserError
from evolq_jax.network.network import Network
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward
from evolq_jax.objective.objective import Objective, Outputs, Teacher
from evolq_jax.objective.terms import TERMS, Term, Weighted, as_term
from evolq_jax.pipeline.load import Setup
from evolq_jax.quantized.search import compile_search_ahead
from evolq_jax.search import space
from evolq_jax.search.space import SearchSpace
from evolq_jax.typing import Array, Params


def searched_sites(setup: Setup) -> tuple[str, ...]:
    """The sites whose scales `search.sites` lets the search vary; they lie in the network's blocks.

    Raises:
      UserError: a pattern matches no site that has scales, or all lie outside the blocks.
    """
    return space.searched_sites(setup.model.parts, setup.specs, setup.config.search.sites)


def search_spaces(setup: Setup) -> dict[str, SearchSpace]:
    """What is searched, by segment, where anything is.

    Raises:
      UserError: as `searched_sites`; or zero points are to move, and a segment has none.
    """
    with_qparams = [name for name, spec in setup.specs if spec.has_scale]
    segments = dict.fromkeys(name.split("/")[0] for name in searched_sites(setup))
    return {segment: setup.config.search.space(with_qparams, segment, setup.specs) for segment in segments}


def check_search(setup: Setup) -> None:
    """Finds out before anything is computed what would stop the search.

    Raises:
      UserError: the sites, the space, the algorithm or the fitness are wrong.
    """
    search = setup.config.search
    search_spaces(setup)
    rounding = [link.name for link in setup.config.calibration.links if link.rounds]
    if rounding and any(objective.is_local for objective in search.objectives()):
        raise UserError(
            "search.fitness 'local' compares a block with its float weights, which calibration.chain's "
            f"'{rounding[0]}' has replaced by integers: leave one of them out"
        )
    _check_fitness(setup)
    search.strategy({"scale": np.ones(8, np.float32)})  # any solution: what is refused is a name or a size


def _check_fitness(setup: Setup) -> None:
    """Also traces a user's terms on arrays of this network's shapes.

    Raises:
      UserError: a term is unknown or blind to this network's output, or a function fails or gives no scalar.
    """
    search, model = setup.config.search, setup.model
    if search.has_features and not model.parts.features:
        raise UserError(f"search.fitness 'features': '{model.name}' does not say what its classifiers read")
    used = [term for objective in search.objectives() for _, term in objective.terms]
    blind = next((term.name for term in used if term.directions), None)
    if blind and model.num_classes == 1:
        raise UserError(
            f"search.fitness '{blind}' compares the directions of logits, and '{model.name}' has one output, "
            "which has none: take kl or mse"
        )
    given = [as_term(term) for term in search.fitness_functions]
    for term in dict.fromkeys(term for term in [*given, *used] if term not in TERMS.values()):
        _trace(model, term, search.batch_size or search.usual_batch)


def _trace(model: Network, term: Term, batch_size: int) -> None:
    """Tries a user's term on arrays of this network's shapes."""
    images = jax.ShapeDtypeStruct((batch_size, *model.image_shape), "float32")
    objective, parts = Objective((Weighted(1.0, term),)), model.parts

    def made(params: Params, images: Array) -> tuple[Outputs, Array]:
        reading = float_reading(params)
        block_input = parts.segments[0].enter(params, reading.outside, images)
        return objective.outputs(parts, reading, lambda read: forward(parts, read, images)), block_input

    def fitness(outputs: Outputs, x: Array) -> Array:
        if objective.is_local:
            outputs = outputs._replace(own_errors=objective.own_errors(x, x))
        assert outputs.logits is not None
        return objective(outputs, Teacher(outputs.logits, outputs.features))

    outputs, block_output = jax.eval_shape(made, model.params, images)  # a block keeps its input's shape
    read: dict[str, Any] = {
        "logits": outputs.logits,
        "features": outputs.features,
        "own_output": block_output,
    }
    try:
        jax.eval_shape(fitness, outputs, block_output)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"search.fitness: '{term.name}' fails on {term.reads.replace('_', ' ')} of shape "
            f"{read[term.reads].shape}: {type(error).__name__}: {error}"
        ) from error


def compile_ahead_of_search(setup: Setup, num_images: int) -> None:
    """Begins to compile the search while images are decoded and the network is calibrated.

    On several devices, and where calibration adds parameters, it does nothing.
    """
    if setup.mesh is None and not setup.added_parameters:
        search, blank = setup.config.search, setup.blank_qparams
        compile_search_ahead(setup.model, setup.specs, blank, search, num_images=num_images)
