"""What of a network a search may vary, and what would stop it."""

import jax
import jax.numpy as jnp

from evolq_jax.errors import UserError
from evolq_jax.network.run import forward
from evolq_jax.network.sites import is_stacked
from evolq_jax.objective.fitness import make_fitness
from evolq_jax.pipeline.load import Setup
from evolq_jax.quant.sites import float_sites
from evolq_jax.quant.spec import select
from evolq_jax.search.space import SearchSpace


def searched_sites(setup: Setup) -> tuple[str, ...]:
    """The sites whose scales `search.sites` lets the search vary; they lie in the network's blocks.

    Raises:
      UserError: a pattern matches no site that has scales, or all lie outside the blocks.
    """
    patterns = setup.config.search.sites
    with_qparams = [name for name, spec in setup.specs if spec.has_scale]
    chosen = select(patterns, with_qparams)
    inside = tuple(name for name in chosen if is_stacked(setup.model.parts, name))
    if not inside:
        raise UserError(
            f"search.sites ({', '.join(patterns) or 'empty'}) name no site of the network's blocks"
        )
    return inside


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
    if rounding and any(scoring.has_local for scoring in search.scorings()):
        raise UserError(
            "search.fitness 'local' compares a block with its float weights, which calibration.chain's "
            f"'{rounding[0]}' has replaced by integers: leave one of them out"
        )
    _check_fitness(setup)
    search.make_algorithm({"scale": jnp.ones(8)})  # any solution: what is refused is a name or a size


def _check_fitness(setup: Setup) -> None:
    """Also traces the functions of a config file on logits of this network's shape.

    Raises:
      UserError: a term is unknown, or a function fails or gives no scalar.
    """
    search, model = setup.config.search, setup.model
    if search.has_features and not model.parts.features:
        raise UserError(f"search.fitness 'features': '{model.name}' does not say what its classifiers read")
    if not search.fitness_functions:
        return
    size, channels = model.preprocessing.size, len(model.preprocessing.mean)
    images = jax.ShapeDtypeStruct((search.batch_size, size, size, channels), "float32")
    logits = jax.eval_shape(lambda p, x: forward(model.parts, float_sites, p, {}, x), model.params, images)
    for function in search.fitness_functions:
        try:
            jax.eval_shape(make_fitness(function.__name__, functions=(function,)), logits, logits)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"search.fitness_functions: '{function.__name__}' fails on logits of shape {logits.shape}: "
                f"{type(error).__name__}: {error}"
            ) from error
