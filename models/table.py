"""Tables of parameters, one line per leaf. Shapes, checkpoint rules and random values follow from a table.

A family lists its layers once, each with our path and the file's key. The functions here give the lines of
one kind of layer, or work on a whole table.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evolq_jax.models.convert import CONV, LINEAR, SAME, Layout, Rule
from evolq_jax.trees import unflatten
from evolq_jax.typing import Array, Params


class Leaf(NamedTuple):
    """One leaf: its key in the file, its shape in our tree (of one block), and how it is stacked."""

    key: str  # with `{}` for the block's number where it is stacked
    shape: tuple[int, ...]
    depth: int | None = None  # L, where it is stacked
    first: int = 0  # number of the first block, and the step to the next
    step: int = 1

    @property
    def whole_shape(self) -> tuple[int, ...]:
        """The shape with the L axis, where it is stacked."""
        return self.shape if self.depth is None else (self.depth, *self.shape)


Table = dict[str, Leaf]  # by name in our tree


def conv(path: str, key: str, bn: str | None, sizes: tuple[int, int, int]) -> Table:
    """A k x k convolution and the BatchNorm after it, key `bn`. None: no BatchNorm, but a bias.

    `sizes` are k and the numbers of channels that go in and come out.
    """
    size, channels_in, channels_out = sizes
    weight = {f"{path}/weight": Leaf(f"{key}.weight", (size, size, channels_in, channels_out))}
    if bn is None:
        return weight | {f"{path}/bias": Leaf(f"{key}.bias", (channels_out,))}
    return weight | _batch_norm(f"{path}/bn", bn, channels_out)


def linear(path: str, key: str, width_in: int, width_out: int, *, bias: bool = True) -> Table:
    """A linear layer."""
    weight = {f"{path}/weight": Leaf(f"{key}.weight", (width_in, width_out))}
    return weight | ({f"{path}/bias": Leaf(f"{key}.bias", (width_out,))} if bias else {})


def linear_bn(path: str, key: str, width_in: int, width_out: int) -> Table:
    """A linear layer without bias and the BatchNorm after it, `key.linear` and `key.bn`."""
    layer = linear(path, f"{key}.linear", width_in, width_out, bias=False)
    return layer | _batch_norm(f"{path}/bn", f"{key}.bn", width_out)


def bn_linear(path: str, key: str, width_in: int, width_out: int) -> Table:
    """A BatchNorm and the linear layer after it, `key.bn` and `key.linear`."""
    layer = linear(path, f"{key}.linear", width_in, width_out)
    return layer | _batch_norm(f"{path}/bn_before", f"{key}.bn", width_in)


def norm(path: str, key: str, width: int) -> Table:
    """A LayerNorm."""
    return {f"{path}/{name}": Leaf(f"{key}.{name}", (width,)) for name in ("weight", "bias")}


def under(path: str, key: str, table: Table) -> Table:
    """The table of a module inside another one."""
    return {f"{path}/{name}": leaf._replace(key=f"{key}.{leaf.key}") for name, leaf in table.items()}


def stacked(path: str, key: str, block: Table, depth: int, *, first: int = 0, step: int = 1) -> Table:
    """The table of a segment of `depth` such blocks. `key` has a `{}` for the block's number."""
    inside = under(path, key, block)
    return {name: leaf._replace(depth=depth, first=first, step=step) for name, leaf in inside.items()}


def rules(table: Table) -> dict[str, Rule]:
    """How a PyTorch file holds the leaves: kernels OIHW, matrices [out, in], everything else like ours."""

    def form(name: str, leaf: Leaf) -> Rule:
        kind = {4: CONV, 2: LINEAR}.get(len(leaf.shape), SAME) if name.endswith("/weight") else SAME
        return Rule((leaf.key,), kind, leaf.first, leaf.step)

    return {name: form(name, leaf) for name, leaf in table.items()}


def init_params(key: Array, table: Table) -> Params:
    """Random parameters: He normal kernels and matrices (1502.01852), norms that do nothing, zeros."""

    def values(name: str, leaf: Leaf) -> Array:
        shape = leaf.whole_shape
        if name.endswith("weight") and len(leaf.shape) > 1:
            std = math.sqrt(2 / math.prod(leaf.shape[:-1]))
            return std * jax.random.normal(jax.random.fold_in(key, zlib.crc32(name.encode())), shape)
        return jnp.ones(shape) if name.endswith(("weight", "running_var")) else jnp.zeros(shape)

    return unflatten({name: values(name, leaf) for name, leaf in table.items()})


_BUFFERS = (
    "num_batches_tracked",
    "attention_bias_idxs",
    "relative_position_index",
    "attn_mask",
    "n_averaged",
)


def torch_key(key: str) -> str:
    """A state dict's key. Buffers that count or index are set apart."""
    return f"buffer:{key}" if key.endswith(_BUFFERS) else key


def layout(
    name: str,
    probe: str,
    table: Callable[[Any], Table],
    *,
    rename: Callable[[str], str] = torch_key,
    classes: str = "head/bias",
) -> Layout:
    """The layout of files that hold a family's table under its keys; see `Layout`."""
    return Layout(name, probe, lambda config: rules(table(config)), rename, ("buffer:",), classes)


def _batch_norm(path: str, key: str, width: int) -> Table:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{path}/{name}": Leaf(f"{key}.{name}", (width,)) for name in names}
