"""What a registry holds: families of networks, and models of a family by name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from evolq_jax.models.convert import Layout
from evolq_jax.models.table import Table
from evolq_jax.network.parts import ModelParts
from evolq_jax.typing import Array, Params, Preprocessing


@dataclass(frozen=True)
class Family:
    """What all sizes of one architecture share.

    - `make(config)` gives the network.
    - `init(key, config)` gives random parameters. Checkpoints are compared with their shapes.
    - `layouts` are the kinds of files that can be read. The first one is what we write.
    - `table(config)` lists the parameters, where a table does.
    """

    make: Callable[[Any], ModelParts]
    init: Callable[[Array, Any], Params]
    layouts: tuple[Layout, ...]
    table: Callable[[Any], Table] | None = None


@dataclass(frozen=True)
class Entry:
    """A model of the registry: a frozen, hashable `config` of its family, and the usual preprocessing."""

    name: str
    family: Family
    config: Any
    preprocessing: Preprocessing

    def make(self) -> ModelParts:
        """The network with the sizes of this entry."""
        return self.family.make(self.config)


IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # bicubic, crop 0.9
CLIP = replace(IMAGENET, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
HALF = Preprocessing()  # mean and std 0.5
PIXELS = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)


def cropped(usual: Preprocessing, size: int, crop: float) -> Preprocessing:
    """The usual preprocessing at another size. The crop keeps `crop` of the side, as timm rounds it."""
    return replace(usual, size=size, resize=int(size / crop))
