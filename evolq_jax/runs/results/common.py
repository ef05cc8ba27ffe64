"""What several results have in common: the setting of a network, and what its numbers depend on."""

from dataclasses import dataclass

from evolq_jax.config.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a table of numbers needs to be read.

    Attributes:
      name: the experiment's.
      seed: of the calibration images and the search.
      model: a name of the registry.
      scheme: which points of the network are quantized.
      weight_bits: of weights.
      edge_weight_bits: of the first and the last layer's weights; None: as the others.
      activation_bits: of activations.
      added_parameters: numbers that the chain of initialisers added to the network's own.
    """

    name: str
    seed: int
    model: str
    scheme: str
    weight_bits: int
    edge_weight_bits: int | None
    activation_bits: int
    added_parameters: int = 0


def setting_of(config: Experiment, model: str, added_parameters: int) -> Setting:
    """The setting of a config, with what is known once its network is loaded."""
    quant = config.quant
    return Setting(
        name=config.name,
        seed=config.seed,
        model=model,
        scheme=quant.scheme,
        weight_bits=quant.weight_bits,
        edge_weight_bits=quant.edge_weight_bits,
        activation_bits=quant.activation_bits,
        added_parameters=added_parameters,
    )
