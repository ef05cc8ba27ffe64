"""From a config to the network that algorithms take, and what of it is quantized and searched."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from evolq_jax.calibration.chain import check_links, specs_after
from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.mesh import make_mesh
from evolq_jax.devices.precision import Precision
from evolq_jax.devices.programs import forget_programs
from evolq_jax.errors import UserError
from evolq_jax.models import registry
from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.network.network import Network
from evolq_jax.quant.qparams import QParams, blank_qparams
from evolq_jax.quant.scheme import resolve
from evolq_jax.quant.spec import Specs
from evolq_jax.quantized.network import QuantizedNetwork
from evolq_jax.typing import SiteInfo


@dataclass(frozen=True)
class Setup:
    """A loaded network, what of it is quantized, and the devices that it runs on (None: one)."""

    config: Experiment
    model: Network
    sites: dict[str, SiteInfo]
    specs: Specs
    bits: dict[str, int]
    mesh: Mesh | None = None

    @property
    def blank_qparams(self) -> QParams:
        """The quantizers' numbers before calibration: the config's bits."""
        return blank_qparams(self.specs, self.bits, self.sites)

    @property
    def blank_network(self) -> QuantizedNetwork:
        """The quantized network before calibration: what runs it can be compiled."""
        return QuantizedNetwork(self.model, self.model.params, self.blank_qparams, self.specs)

    @property
    def added_parameters(self) -> int:
        """Numbers that the chain of initialisers adds to the network's own."""
        return sum(
            link.added_parameters(self.model.parts, self.model.params, self.model.image_shape)
            for link in self.config.calibration.links
            if link.added_parameters is not None
        )


def load_network(
    name: str,
    weights: str | Path | None = None,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
) -> Network:
    """A network of the registry with the weights of a checkpoint.

    Args:
      name: of the registry (`evolq_jax.list_models`), with or without timm's `.tag`.
      weights: a `.safetensors` or `.npz` file, the index of shards, a folder that holds one of these, or
        `hf-hub:owner/name`; None: the weights that evolq_jax ships for this network.
      preprocessing: fields of `Preprocessing` that replace the checkpoint's, such as `{"mean": (0.5,)}`; one
        number stands for all channels.
      precision: of matrix products, on every backend.

    Raises:
      UserError: the name is unknown, or the weights are missing, damaged or of another network.
    """
    network = load_checkpoint(name, weights or shipped_weights(name), preprocessing=preprocessing)
    return replace(network, precision=precision)


def load_model(config: Experiment) -> Setup:
    """Reads the weights and resolves the quantizers; every run of a process begins with it.

    Raises:
      UserError: the mesh, the model, its weights, the chain of initialisers or a site pattern is wrong.
    """
    forget_programs()
    mesh = make_mesh(config.mesh, config.search.population_size)
    model = load_network(
        config.model.name,
        config.model.weights,
        preprocessing=config.preprocessing.changes,
        precision=config.precision,
    )
    sites, links = model.sites, config.calibration.links
    specs, bits = resolve(config.quant, sites)
    check_links(links, model.parts, specs)
    return Setup(config, model, sites, specs_after(links, specs, sites), bits, mesh)


def shipped_weights(name: str) -> Path:
    """The weights that evolq_jax brings along for a model.

    Raises:
      UserError: the model is unknown, or evolq_jax brings no weights for it.
    """
    path = registry.WEIGHTS / f"{registry.get_entry(name).name}.safetensors"
    if not path.is_file():
        raise UserError(f"evolq_jax comes without weights for '{name}': give them with --model.weights FILE")
    return path
