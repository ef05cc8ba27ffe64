"""Compiles a search's scoring program ahead of time, from shapes alone: no weights, no images."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.compiled import work
from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.mesh import DATA
from evolq_jax.devices.precision import matmul_precision
from evolq_jax.models.registry import get_entry
from evolq_jax.network.network import Network
from evolq_jax.network.point import Quantized, at_qparams
from evolq_jax.network.reading import quantized_reading
from evolq_jax.network.sites import list_sites
from evolq_jax.network.walk import block_inputs
from evolq_jax.objective.objective import Teacher
from evolq_jax.pipeline.load import Setup
from evolq_jax.quant.qparams import QParams
from evolq_jax.quant.scheme import resolve
from evolq_jax.quant.spec import scope
from evolq_jax.search import programs
from evolq_jax.search.population import Context
from evolq_jax.search.runner import Runner
from evolq_jax.typing import Params


@dataclass(frozen=True)
class Compiled:
    """What each device does and holds."""

    flops_first: float  # of matrix products, for a candidate of the first block
    flops_last: float  # of the last block but one
    received: int  # bytes of collectives' results
    largest: int  # of one of them
    arguments: int  # bytes
    temporary: int


def abstract_setup(config: Experiment) -> Setup:
    """Like `load_model`, with shapes in place of weights."""
    entry = get_entry(config.model.name)
    parts = entry.family.make(entry.config)
    params = jax.eval_shape(lambda key: entry.family.init(key, entry.config), jax.random.key(0))
    size, channels = entry.preprocessing.size, len(entry.preprocessing.mean)
    sites = list_sites(parts, params, (size, size, channels))
    model = Network(parts, params, entry.preprocessing, entry.name, entry.config)
    return Setup(config, model, sites, *resolve(config.quant, sites))


def abstract_qparams(setup: Setup) -> QParams:
    """The shapes of the quantizers' numbers, as calibration gives them."""
    return jax.eval_shape(lambda: setup.blank_qparams)


def compile_scoring(setup: Setup, mesh: Mesh, num_images: int) -> Compiled:
    """The program that scores a generation's candidates for a block of a network of one segment."""
    search, parts = setup.config.search, setup.model.parts
    population, (objective, _) = search.population_size, search.objectives()
    segment, placement = parts.segments[0], search.placement(mesh, num_images)
    assert placement is not None
    qparams = abstract_qparams(setup)
    network = _on(mesh, P(), jax.eval_shape(partial(at_qparams, setup.specs), setup.model.params, qparams))
    blocks = scope(qparams, segment.name)
    candidates: Any = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((population, 1, *leaf.shape[1:]), leaf.dtype), blocks
    )
    inputs = _inputs(setup, network, placement.devices * sum(placement.shares))
    logits = jax.ShapeDtypeStruct((num_images, setup.model.config.num_classes), jnp.float32)
    context: Any = Context(
        network=network,
        block=jax.ShapeDtypeStruct((), jnp.int32),  # type: ignore[arg-type]
        x=_on(mesh, P(None, DATA), inputs),
        teacher=Teacher(_on(mesh, P(), logits)),
        temperature=jax.ShapeDtypeStruct((), jnp.float32),  # type: ignore[arg-type]
    )
    runner = Runner(parts, setup.specs, *search.chunks(), placement)
    candidates, static = _on(mesh, P(), candidates), {"number": 0, "num_images": num_images}
    with matmul_precision():
        compiled = programs.score.lower(runner, objective, context, candidates, **static).compile()
    text, memory = compiled.as_text() or "", compiled.memory_analysis()
    assert memory is not None  # every backend used here tells
    rounds = segment.length - (1 if segment.last is None else 2)  # of the loop after the first block
    least, most = work(text, 0), work(text, rounds)
    sizes = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    return Compiled(most.flops, least.flops, sum(most.received.values()), most.largest, *sizes)


def _inputs(setup: Setup, network: Quantized, num_images: int) -> Any:
    """The shape of all blocks' inputs [L, B, ...]."""
    parts, size = setup.model.parts, setup.model.preprocessing.size
    image = jax.ShapeDtypeStruct((1, size, size, len(setup.model.preprocessing.mean)), jnp.float32)

    def one(params: Params, qparams: QParams, image: Any) -> Any:
        reading = quantized_reading(setup.specs, params, qparams)
        tokens = parts.segments[0].enter(params, reading.outside, image)
        inputs = block_inputs(parts, reading, tokens, chunk=1)
        return inputs[parts.segments[0].name]

    length, _, *shape = jax.eval_shape(one, network.quantized, network.qparams, image).shape
    return jax.ShapeDtypeStruct((length, num_images, *shape), jnp.float32)


def _on(mesh: Mesh, spec: P, tree: Any) -> Any:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
