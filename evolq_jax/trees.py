"""Trees as nested dicts: leaves by `/`-joined names, and how equal trees are stacked."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from evolq_jax.typing import PyTree


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a": {"b": leaf}}` -> `{"a/b": leaf}`, in the order of the tree. Only dicts are entered."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{below}": leaf for below, leaf in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`: `{"a/b": leaf}` -> `{"a": {"b": leaf}}`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *above, name = path.split("/")
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[name] = leaf
    return tree


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Joins equal trees into one tree whose leaves have a leading axis of `len(trees)`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: PyTree) -> list[PyTree]:
    """The inverse of `stack`: one tree for each index of the leaves' leading axis."""
    length = jax.tree.leaves(tree)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(length)]
