"""Plans a search with the paper's budget on many chips, from a program compiled for 64 devices.

    python benchmarks/plan_chips.py --model vit_base_patch16_224 --population 16

The scoring program is compiled ahead of time for virtual CPU devices, from shapes alone. Its matrix products,
collectives and memory on each device are compared with the formulas below. The formulas then give other
numbers of chips. Times are computed, not measured. They rest on a chip's rates, which are options.
"""

import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import tyro

from benchmarks.entry import run_or_refuse

if TYPE_CHECKING:
    from benchmarks.ahead import Compiled

MIB = 2**20
PASSES, SCORED = 10, 4  # the paper's: passes; generations at each block, and its start, which is scored anew


@dataclass(frozen=True)
class Options:
    """What is planned. The rates are those of a TPU v5e's data sheet; float32 takes six passes of bfloat16.

    Attributes:
      model: a ViT of the registry.
      population: candidates of a generation; 1 is the paper's search.
      images: for calibration.
      compiled: virtual devices that the program is compiled for.
      chips: numbers of chips to plan for.
      chunk: images times candidates that run at once on a chip.
      teraflops: of float32 matrix products, at best.
      reached: the share of these that a network reaches.
      gigabytes: per second that a chip receives in a gather.
      milliseconds: of the host for each generation, in which chips wait.
    """

    model: str = "vit_base_patch16_224"
    population: int = 1
    images: int = 1000
    compiled: int = 64
    chips: tuple[int, ...] = (1, 8, 64, 256)
    chunk: int = 64
    teraflops: float = 197 / 6
    reached: float = 0.4
    gigabytes: float = 50.0
    milliseconds: float = 2.0


@dataclass(frozen=True)
class Network:
    """Sizes of a ViT, and of the contrastive batch."""

    tokens: int
    width: int
    hidden: int
    depth: int
    classes: int
    parameters: int
    batch: int

    @property
    def block_flops(self) -> float:
        """Of one block for one image."""
        weights = 4 * self.width**2 + 2 * self.width * self.hidden
        return 2.0 * self.tokens * weights + 4.0 * self.tokens**2 * self.width

    @property
    def last(self) -> float:
        """The share of a block that the last one runs, after the searched one: the head reads one token."""
        own = 2 * (self.width**2 + 2 * self.width * self.hidden) + 4 * self.tokens * self.width
        return (6.0 * self.tokens * self.width**2 + own) / self.block_flops


@dataclass(frozen=True)
class Chip:
    """What a generation is for one chip of many; all of them do the same."""

    network: Network
    population: int
    images: int
    chunk: int
    chips: int

    @property
    def axes(self) -> tuple[int, int]:
        """Chips along `candidate` and `data`, as evolq_jax chooses them."""
        candidates = math.gcd(self.chips, self.population)
        return candidates, self.chips // candidates

    @property
    def candidates(self) -> int:
        """That it runs."""
        return math.ceil(self.population / self.axes[0])

    @property
    def share(self) -> int:
        """Images that it runs each of them on, in chunks of one size; some are run twice to fill them up."""
        least = math.ceil(self.images / self.axes[1])
        chunks = math.ceil(least / self.chunk)
        return chunks * math.ceil(least / chunks)

    def flops(self, blocks: float) -> float:
        """Of matrix products: `blocks` from the searched one on, the head, infoNCE's similarities.

        The last are of all images: every chip has all logits of its candidates.
        """
        net = self.network
        each = blocks * net.block_flops + 2.0 * net.width * net.classes
        return self.candidates * (self.share * each + 2.0 * self.images * net.batch * net.classes)

    @property
    def received(self) -> float:
        """Bytes: logits of its candidates for all images, and the fitness of all candidates."""
        candidates, data = self.axes
        logits = 4.0 * self.candidates * self.share * data * self.network.classes if data > 1 else 0.0
        return logits + (4.0 * self.population if candidates > 1 else 0.0)

    @property
    def arguments(self) -> float:
        """Bytes: weights, float and quantized; all blocks' inputs for its images; all teacher logits."""
        net = self.network
        inputs = net.depth * self.share * net.tokens * net.width
        return 4.0 * (2 * net.parameters + inputs + self.images * net.classes)

    def seconds(self, options: Options) -> float:
        """Of a generation at the block in the middle."""
        rate = 1e12 * options.teraflops * options.reached
        compute = self.flops((self.network.depth - 1) / 2 + self.network.last) / rate
        gather = self.received / (1e9 * options.gigabytes)
        return compute + gather + options.milliseconds / 1e3


def main() -> None:
    """Compiles, compares and extrapolates; prints Markdown."""
    options = tyro.cli(Options)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={options.compiled}"
    network, compiled = _compile(options)
    first = Chip(network, options.population, options.images, options.chunk, options.compiled)
    most, least = network.depth - 1 + network.last, 1 + network.last
    print(f"{options.model}, population {options.population}, on each of {options.compiled} devices:\n")
    print("| | compiled | formula |\n|---|---|---|")
    for name, is_, should in (
        ("GFLOP of a generation, first block", compiled.flops_first / 1e9, first.flops(most) / 1e9),
        ("GFLOP of a generation, last block but one", compiled.flops_last / 1e9, first.flops(least) / 1e9),
        ("MiB received in a generation", compiled.received / MIB, first.received / MIB),
        ("MiB held", compiled.arguments / MIB, first.arguments / MIB),
        ("MiB of intermediate results", compiled.temporary / MIB, None),
    ):
        print(f"| {name} | {is_:,.2f} | {'' if should is None else f'{should:,.2f}'} |")
    print(
        "\n| chips | candidate x data | candidates x images each | GFLOP each | MiB received each "
        "| MiB held each | generation, ms | search, s | efficiency |\n|---|---|---|---|---|---|---|---|---|"
    )
    alone = replace(first, chips=1).seconds(options)
    for chips in options.chips:
        plan = replace(first, chips=chips)
        seconds, held = plan.seconds(options), plan.arguments + compiled.temporary
        search = PASSES * network.depth * SCORED * seconds
        print(
            f"| {chips} | {plan.axes[0]} x {plan.axes[1]} | {plan.candidates} x {plan.share} "
            f"| {plan.flops((network.depth - 1) / 2 + network.last) / 1e9:,.0f} | {plan.received / MIB:.2f} "
            f"| {held / MIB:,.0f} | {1e3 * seconds:,.1f} | {search:,.0f} "
            f"| {100 * alone / (chips * seconds):.0f} % |"
        )


def _compile(options: Options) -> tuple[Network, "Compiled"]:
    """The network's sizes, and what the compiled program does; imports JAX, which reads the environment."""
    import jax

    from benchmarks.ahead import abstract_setup, compile_scoring
    from evolq_jax.config.experiment import Experiment, ModelConfig, QuantConfig, SearchConfig
    from evolq_jax.config.presets import faithful
    from evolq_jax.devices.mesh import make_mesh

    quant = QuantConfig("fully_quantized", weight_bits=4, activation_bits=8)
    config = faithful(
        Experiment(model=ModelConfig(options.model), quant=quant, search=SearchConfig(passes=10))
    )
    mesh = make_mesh(None, options.population)
    assert mesh is not None
    candidates = math.ceil(options.population / mesh.shape["candidate"])
    share = math.ceil(options.images / mesh.shape["data"])
    group = math.gcd(candidates, max(options.chunk // share, 1))
    search = replace(
        config.search, population_size=options.population, image_chunk=options.chunk, population_chunk=group
    )
    setup = abstract_setup(replace(config, search=search))
    sizes = setup.model.config
    parameters = sum(leaf.size for leaf in jax.tree.leaves(setup.model.params))
    network = Network(
        sizes.num_tokens,
        sizes.width,
        sizes.mlp_width,
        sizes.depth,
        sizes.num_classes,
        parameters,
        search.fitted(options.images).batch_size or 1,
    )
    return network, compile_scoring(setup, mesh, options.images)


if __name__ == "__main__":
    run_or_refuse(main)
