"""From a config to the network that algorithms take, and what of it is quantized and searched."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import evolq_jax.models
from evolq_jax.calibration.chain import DECIDING, check_chain
from evolq_jax.config import Experiment
from evolq_jax.errors import UserError
from evolq_jax.fitness import make_fitness
from evolq_jax.models import registry
from evolq_jax.models.checkpoint import LoadedModel, load_checkpoint
from evolq_jax.network import SiteInfo, is_stacked, list_sites
from evolq_jax.quant.spec import Specs, resolve, select, with_codes
from evolq_jax.search.algorithms import make_algorithm


@dataclass(frozen=True)
class Setup:
    """A loaded network and what of it is quantized."""

    config: Experiment
    model: LoadedModel
    sites: dict[str, SiteInfo]
    specs: Specs


def exact_matmul() -> AbstractContextManager[Any]:
    """Matrix products in full float32: what GPUs do by default (TF32) is coarser than a search's steps."""
    return jax.default_matmul_precision("float32")


def load_model(config: Experiment) -> Setup:
    """Reads the weights and resolves the quantizers.

    Raises:
      UserError: the model, its weights, the chain of initialisers or a site pattern is wrong.
    """
    weights = config.model.weights or shipped_weights(config.model.name)
    model = load_checkpoint(config.model.name, weights)
    size = model.preprocessing.size
    check_chain(config.calibration.chain, model.parts)
    sites = list_sites(model.parts, model.params, (size, size, len(model.preprocessing.mean)))
    specs = resolve(config.quant, sites)
    if set(config.calibration.chain) & set(DECIDING):
        specs = with_codes(specs, [name for name, info in sites.items() if info.is_weight])
    return Setup(config, model, sites, specs)


def shipped_weights(name: str) -> Path:
    """The weights that evolq_jax brings along for a model.

    Raises:
      UserError: the model is unknown, or evolq_jax brings no weights for it.
    """
    path = _weights_folder() / f"{registry.get_entry(name).name}.safetensors"
    if not path.is_file():
        raise UserError(f"evolq_jax comes without weights for '{name}': give them with --model.weights FILE")
    return path


def list_models() -> list[dict[str, Any]]:
    """Every model of the registry by its sizes, and whether evolq_jax brings weights for it."""
    rows = [row._asdict() for row in registry.list_models()]
    folder = _weights_folder()
    return [row | {"weights_included": (folder / f"{row['name']}.safetensors").is_file()} for row in rows]


def _weights_folder() -> Path:
    return Path(evolq_jax.models.__file__).parent / "weights"


def searched_sites(setup: Setup) -> tuple[str, ...]:
    """The sites whose scales `search.sites` lets the search vary; they lie in the network's blocks.

    Raises:
      UserError: a pattern matches no site that has scales, or all lie outside the blocks.
    """
    patterns = setup.config.search.sites
    with_scales = [name for name, spec in setup.specs if spec.has_scale]
    chosen = select(patterns, with_scales)
    inside = tuple(name for name in chosen if is_stacked(setup.model.parts, name))
    if not inside:
        raise UserError(
            f"search.sites ({', '.join(patterns) or 'empty'}) name no site of the network's blocks"
        )
    return inside


def check_search(setup: Setup) -> None:
    """Finds out before anything is computed what would stop the search.

    Raises:
      UserError: the sites, the algorithm or the fitness are wrong.
    """
    search = setup.config.search
    searched_sites(setup)
    make_fitness(search.fitness)
    make_algorithm(
        search.algorithm,
        search.population_size,
        {"scale": jnp.ones(8)},  # any solution: what is refused is a name or a population's size
        pool_size=search.pool_size,
        tournament_size=search.tournament_size,
        mutation=search.mutation,
        replacement=search.replacement,
    )
