"""What the searched blocks receive: the outputs of the blocks before them, which a visit does not change.

All blocks' inputs of a pass can be held, in float32 or in half the memory, or each computed at its visit.
"""

from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from evolq_jax.devices.layout import Layout
from evolq_jax.network.parts import ModelParts, num_blocks
from evolq_jax.network.point import Quantized
from evolq_jax.quant.spec import Specs
from evolq_jax.search import programs
from evolq_jax.typing import Array

# In the order in which memory is saved.
Kind = Literal["float32", "bfloat16", "recompute"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Prefixes:
    """The inputs of one pass after the other."""

    def __init__(
        self,
        kind: Kind,
        parts: ModelParts,
        specs: Specs,
        chunk: int,
        tokens: Array,
        num_searched: int,
        layout: Layout | None,
    ) -> None:
        """`tokens` are the calibration images at the first segment's entry, as `search` takes them."""
        self._kind: Kind = kind
        self._parts, self._layout = parts, layout
        self._settings = parts, specs, chunk
        self._tokens, self._num_searched = tokens, num_searched
        self._cached: dict[str, Array] = {}
        self._split: dict[str, list[Array]] = {}

    def begin_pass(self, network: Quantized) -> int:
        """Caches the inputs of a pass that begins or goes on; returns the blocks that each image ran.

        Inputs of blocks that a pass has yet to visit depend on none that it has visited, so a pass that is
        continued gets the same.
        """
        self._split = {}
        if self._kind == "recompute":
            return 0
        dtype: Any = jnp.dtype(self._kind)
        self._cached = programs.cache_inputs(*self._settings, network, self._tokens, self._layout, dtype)
        return num_blocks(self._parts)

    def begin_visit(self, network: Quantized, number: int, block: int) -> tuple[list[Array], int]:
        """The inputs [L, B, ...] of a segment's blocks, and the blocks that each image ran for them.

        The first are of the images searched on, the others of those held out. Where they are computed anew,
        they are of the one block: [1, B, ...].
        """
        name = self._parts.segments[number].name
        if self._kind == "recompute":
            x = programs.block_input(
                *self._settings, number, network, self._tokens, np.int32(block), self._layout
            )
            before = sum(segment.length for segment in self._parts.segments[:number])
            return programs.split(x, self._num_searched, self._layout), before + block
        if name not in self._split:
            self._split = {name: programs.split(self._cached.pop(name), self._num_searched, self._layout)}
        return self._split[name], 0
