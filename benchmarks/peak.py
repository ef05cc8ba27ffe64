"""The machine's float32 matrix product in GFLOP/s, and the images per second that this allows ViTs.

python benchmarks/peak.py
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.command import main
from benchmarks.subject import Options, Subject
from benchmarks.timing import interleave, timed
from evolq_jax.models.vit import ViTConfig

SIZES = (1024, 1536, 2048)


def peak_flops(sizes: tuple[int, ...] = SIZES, repeats: int = 5) -> float:
    """Floating-point operations a second of the best square product of several."""
    product = jax.jit(jnp.matmul)

    def operands(size: int) -> tuple[jax.Array, jax.Array]:
        left, right = jax.random.split(jax.random.key(size))
        return jax.random.normal(left, (size, size)), jax.random.normal(right, (size, size))

    pairs = {size: operands(size) for size in sizes}
    tasks = {size: timed(partial(product, *pair)) for size, pair in pairs.items()}
    seconds = interleave(tasks, repeats)
    return max(2 * size**3 / min(seconds[size]) for size in sizes)


def block_flops(config: ViTConfig) -> int:
    """Operations of one block's matrix products for one image."""
    tokens, width = config.num_tokens, config.width
    linear = 4 * width * width + 2 * width * config.mlp_width
    return 2 * tokens * linear + 4 * tokens * tokens * width


def last_block_flops(config: ViTConfig) -> int:
    """The same of the last block, where the head reads the class token alone: keys and values are of all."""
    if config.pool != "token":
        return block_flops(config)
    read, tokens, width = 1 + config.distilled, config.num_tokens, config.width
    own = 2 * read * (width * width + 2 * width * config.mlp_width)
    return 2 * tokens * 3 * width * width + own + 4 * read * tokens * width


def forward_flops(config: ViTConfig, *, whole: bool = False) -> int:
    """Operations of the network's matrix products for one image.

    Args:
      config: the network's sizes.
      whole: whether the last block runs for all tokens, as in calibration.
    """
    patches = config.num_tokens - 1 - config.distilled
    embedding = 2 * patches * config.patch_size**2 * config.channels * config.width
    last = block_flops(config) if whole else last_block_flops(config)
    blocks = (config.depth - 1) * block_flops(config) + last
    return embedding + blocks + 2 * config.width * config.num_classes


def measure(subject: Subject, options: Options) -> list[dict[str, Any]]:
    """One row: the peak, and the images a second that it would allow."""
    flops = peak_flops(repeats=options.repeats)
    return [
        {
            "matmul GFLOP/s": round(flops / 1e9, 1),
            "GFLOP an image": round(forward_flops(subject.config) / 1e9, 3),
            "images/s at the peak": round(flops / forward_flops(subject.config), 1),
        }
    ]


if __name__ == "__main__":
    main(__doc__, {"float32 matrix product": measure})
