"""From a config to the network that algorithms take, and what of it is quantized and searched."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

import evolq_jax.models
from evolq_jax.calibration.block_linear import added_parameters
from evolq_jax.calibration.chain import ROUNDING, check_chain
from evolq_jax.calibration.clipping import clipped_sites
from evolq_jax.config import Experiment
from evolq_jax.errors import UserError
from evolq_jax.experiment.compiled import forget_programs
from evolq_jax.fitness import make_fitness
from evolq_jax.mesh import make_mesh
from evolq_jax.models import registry
from evolq_jax.models.checkpoint import LoadedModel, load_checkpoint
from evolq_jax.network import SiteInfo, forward, is_stacked, list_sites
from evolq_jax.quant.sites import float_sites
from evolq_jax.quant.spec import Specs, resolve, select, with_codes
from evolq_jax.search.space import SearchSpace


@dataclass(frozen=True)
class Setup:
    """A loaded network, what of it is quantized, and the devices that it runs on (None: one)."""

    config: Experiment
    model: LoadedModel
    sites: dict[str, SiteInfo]
    specs: Specs
    mesh: Mesh | None = None

    @property
    def added_parameters(self) -> int:
        """Numbers that the chain of initialisers adds to the network's own."""
        if "block_linear" not in self.config.calibration.chain:
            return 0
        size, channels = self.model.preprocessing.size, len(self.model.preprocessing.mean)
        return added_parameters(self.model.parts, self.model.params, (size, size, channels))


def load_model(config: Experiment) -> Setup:
    """Reads the weights and resolves the quantizers; every run of a process begins with it.

    Raises:
      UserError: the mesh, the model, its weights, the chain of initialisers or a site pattern is wrong.
    """
    forget_programs()
    mesh = make_mesh(config.mesh, config.search.population_size)
    weights = config.model.weights or shipped_weights(config.model.name)
    model = load_checkpoint(config.model.name, weights)
    size = model.preprocessing.size
    check_chain(config.calibration.chain, model.parts)
    sites = list_sites(model.parts, model.params, (size, size, len(model.preprocessing.mean)))
    specs = resolve(config.quant, sites)
    if "clip" in config.calibration.chain:
        clipped_sites(model.parts, specs, config.calibration.clip.sites)
    if set(config.calibration.chain) & set(ROUNDING):
        specs = with_codes(specs, [name for name, info in sites.items() if info.is_weight])
    return Setup(config, model, sites, specs, mesh)


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


def search_spaces(setup: Setup) -> dict[str, SearchSpace]:
    """What is searched, by segment, where anything is.

    Raises:
      UserError: as `searched_sites`; or zero points are to move, and a segment has none.
    """
    with_scales = [name for name, spec in setup.specs if spec.has_scale]
    segments = dict.fromkeys(name.split("/")[0] for name in searched_sites(setup))
    return {segment: setup.config.search.space(with_scales, segment, setup.specs) for segment in segments}


def check_search(setup: Setup) -> None:
    """Finds out before anything is computed what would stop the search.

    Raises:
      UserError: the sites, the space, the algorithm or the fitness are wrong.
    """
    search = setup.config.search
    search_spaces(setup)
    decided = [name for name, spec in setup.specs if spec.codes]
    if decided and any(scoring.has_local for scoring in search.scorings()):
        raise UserError(
            "search.fitness 'local' compares a block with its float weights, which a link of "
            f"calibration.chain ({' or '.join(ROUNDING)}) has replaced by integers: leave one of them out"
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
