"""What the searched blocks receive: the outputs of the blocks before them, which a visit does not change.

All blocks' inputs of a pass can be held, in float32 or in half the memory, or each computed at its visit.
"""

from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from evolq_jax.network.parts import num_blocks
from evolq_jax.network.point import Quantized
from evolq_jax.search import programs
from evolq_jax.search.problem import Runner
from evolq_jax.typing import Array

# In the order in which memory is saved.
Kind = Literal["float32", "bfloat16", "recompute"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Prefixes:
    """The inputs of one pass after the other."""

    def __init__(
        self,
        runner: Runner,
        tokens: Array,
        *,
        num_searched: int,
        kind: Kind = "float32",
    ) -> None:
        """`tokens` are the calibration images at the first segment's entry, as `search` takes them."""
        self._kind: Kind = kind
        self._runner, self._parts = runner, runner.parts
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
        self._cached = programs.cache_inputs(self._runner, network, self._tokens, dtype=dtype)
        return num_blocks(self._parts)

    def begin_visit(self, network: Quantized, number: int, block: int) -> tuple[list[Array], int]:
        """The inputs [L, B, ...] of a segment's blocks, and the blocks that each image ran for them.

        The first are of the images searched on, the others of those held out. Where they are computed anew,
        they are of the one block: [1, B, ...].
        """
        name = self._parts.segments[number].name
        if self._kind == "recompute":
            index = np.int32(block)
            x = programs.block_input(self._runner, network, self._tokens, index, number=number)
            before = sum(segment.length for segment in self._parts.segments[:number])
            return programs.split(self._runner, x, num_searched=self._num_searched), before + block
        if name not in self._split:
            cached = self._cached.pop(name)
            self._split = {name: programs.split(self._runner, cached, num_searched=self._num_searched)}
        return self._split[name], 0
