"""The setting of a network, which several results have."""

from dataclasses import dataclass, field
from typing import Any

from evolq_jax.config.experiment import Experiment
from evolq_jax.network.network import Network, in_words
from evolq_jax.typing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The caption of a table of numbers.

    Attributes:
      name: the name of the experiment.
      seed: the seed of the calibration images and the search.
      model: a name of the registry.
      scheme: which points of the network are quantized.
      weight_bits: bits of the weights.
      edge_weight_bits: bits of the first and the last layers' weights; None: `weight_bits`.
      activation_bits: bits of the activations.
      added_parameters: the number of parameters that the calibration chain added.
      chain: the names of the calibration chain's links; empty: the result is of an older version.
      fitness: what a search minimises; None: the result is of an older version.
      architecture: the network's sizes and unusual options; empty: the result is of an older version.
      preprocessing: how images were prepared; None: the result is of an older version.
    """

    name: str
    seed: int
    model: str
    scheme: str
    weight_bits: int
    edge_weight_bits: int | None
    activation_bits: int
    added_parameters: int = 0
    chain: tuple[str, ...] = ()
    fitness: str | None = None
    architecture: dict[str, Any] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None

    @property
    def described(self) -> str:
        """The network and how images were prepared, in words. Empty: the result is of an older version."""
        if self.preprocessing is None:
            return ""
        return f"{self.model}: {in_words(self.architecture)}; images: {self.preprocessing}"


def setting_of(config: Experiment, network: Network, added_parameters: int) -> Setting:
    """The setting of a config and its loaded network."""
    quant = config.quant
    return Setting(
        name=config.name,
        seed=config.seed,
        model=network.name,
        scheme=quant.scheme,
        weight_bits=quant.weight_bits,
        edge_weight_bits=quant.edge_weight_bits,
        activation_bits=quant.activation_bits,
        added_parameters=added_parameters,
        chain=tuple(link.name for link in config.calibration.links),
        fitness=config.search.fitness_name,
        architecture=network.outline,
        preprocessing=network.preprocessing,
    )
