"""The models by name (timm's, and a few small ones of our own), and how their checkpoints want images."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from evolq_jax.errors import UserError, suggestion
from evolq_jax.models import entries_staged, entries_vit
from evolq_jax.models.entries_vit import VIT
from evolq_jax.models.family import Entry, Family
from evolq_jax.trees import flatten
from evolq_jax.typing import Preprocessing

__all__ = (
    "REGISTRY",
    "VIT",
    "WEIGHTS",
    "Entry",
    "Family",
    "ModelRow",
    "get_entry",
    "list_models",
    "param_shapes",
)

WEIGHTS = Path(__file__).parent / "weights"  # that evolq_jax brings along


class ModelRow(NamedTuple):
    """One line of the list of models. A size is None if the family does not have it, or has it per stage."""

    name: str
    num_params: int
    image_size: int
    patch_size: int | None
    width: int | None
    depth: int | None
    num_heads: int | None
    preprocessing: Preprocessing
    weights_included: bool  # evolq_jax brings weights for it


REGISTRY = {entry.name: entry for entry in (*entries_vit.ENTRIES, *entries_staged.ENTRIES)}


def get_entry(name: str) -> Entry:
    """The entry of a name, with or without timm's `.tag` of a checkpoint.

    Raises:
        UserError: the name is unknown.
    """
    base = name.split(".")[0]
    if base not in REGISTRY:
        raise UserError(f"unknown model '{name}' (`evolq models` lists them){suggestion(base, REGISTRY)}")
    return REGISTRY[base]


@cache
def param_shapes(family: Family, config: Any) -> dict[str, tuple[int, ...]]:
    """Leaf name -> shape of the parameters of a model; nothing is computed."""
    if family.table is not None:  # tracing `init` would take much longer
        return {name: leaf.whole_shape for name, leaf in family.table(config).items()}
    tree = jax.eval_shape(lambda: family.init(jax.random.key(0), config))
    return {name: leaf.shape for name, leaf in flatten(tree).items()}


def list_models() -> list[ModelRow]:
    """Every model of the registry, with its size and the preprocessing of its usual checkpoint."""
    rows: list[ModelRow] = []
    for entry in REGISTRY.values():
        shapes = param_shapes(entry.family, entry.config)
        names = ("patch_size", "width", "depth", "num_heads")
        sizes = (getattr(entry.config, name, None) for name in names)
        patch, width, depth, heads = (size if isinstance(size, int) else None for size in sizes)
        trained = [shape for name, shape in shapes.items() if "running_" not in name]
        num_params = sum(int(np.prod(shape)) for shape in trained)
        size = entry.preprocessing.size
        included = (WEIGHTS / f"{entry.name}.safetensors").is_file()
        rows.append(
            ModelRow(
                name=entry.name,
                num_params=num_params,
                image_size=size,
                patch_size=patch,
                width=width,
                depth=depth,
                num_heads=heads,
                preprocessing=entry.preprocessing,
                weights_included=included,
            )
        )
    return rows
