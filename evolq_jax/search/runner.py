"""How a search runs the quantized network."""

from dataclasses import dataclass

from jax.sharding import Mesh

from evolq_jax.devices.placement import Placement
from evolq_jax.network.parts import ModelParts
from evolq_jax.quant.spec import Specs


@dataclass(frozen=True)
class Runner:
    """How the quantized network is run: the static argument of the search's programs.

    Attributes:
      parts: the network's functions.
      specs: its quantizers, resolved.
      image_chunk: images that run at once on a device; changes nothing but rounding.
      population_chunk: candidates that run at once, each on so many images.
      placement: how the calibration images lie over the devices; None: on one.
      counts_blocks: whether every block has a program of its own, whose loops over blocks have known bounds.
    """

    parts: ModelParts
    specs: Specs
    image_chunk: int = 10
    population_chunk: int = 1
    placement: Placement | None = None
    counts_blocks: bool = False

    @property
    def one_by_one(self) -> bool:
        """Whether candidates run one after the other on one device, by one program for all blocks."""
        return self.placement is None and self.population_chunk == 1 and not self.counts_blocks

    @property
    def mesh(self) -> Mesh | None:
        """None: one device."""
        return None if self.placement is None else self.placement.mesh
