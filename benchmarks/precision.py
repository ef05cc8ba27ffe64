"""How many pairs of candidates change their order if matrix products are less precise than float32.

python benchmarks/precision.py
python benchmarks/precision.py --emulate        where the hardware has float32 only

Candidates are for the middle block at W4A8. Their log ratios to the calibrated scales are drawn as in a
search. `--emulate` rounds the operands of all quantized products to the format (11 or 8 bits of mantissa, the
first one implied). Products and sums are float32. Tensor cores do the same, except for the order of sums.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks.entry import run_or_refuse
from benchmarks.scaling import table
from benchmarks.subject import Options as SubjectOptions
from benchmarks.subject import Subject, load
from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.devices.precision import Precision, matmul_precision
from evolq_jax.errors import UserError
from evolq_jax.network.parts import ModelParts, Segment
from evolq_jax.network.point import at_qparams
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import at, forward
from evolq_jax.network.walk import block_inputs
from evolq_jax.objective.objective import Teacher, make_objective
from evolq_jax.quant.qparams import QParams, SiteQParams
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quant.spec import Specs, scope
from evolq_jax.search.population import Context, population_fitness
from evolq_jax.search.runner import Runner
from evolq_jax.trees import flatten, unflatten
from evolq_jax.typing import Array, Params, Site, SiteInfo

MANTISSA: dict[Precision, int] = {"tf32": 10, "bfloat16": 7}  # stored bits


@dataclass(frozen=True)
class Options:
    """What is compared.

    Attributes:
      pairs: of candidates.
      spread: half width of the candidates' log ratios; the closer they are, the more change their order.
      images: calibration images.
      chunk: images that run at once.
      fitness: of the search.
      emulate: round operands instead of asking the hardware.
      seed: of the candidates.
    """

    pairs: int = 100
    spread: float = 0.1
    images: int = 100
    chunk: int = 10
    fitness: Literal["kl", "info_nce", "mse"] = "kl"
    emulate: bool = False
    seed: int = 0


class _Rounding:
    """A site whose outputs are rounded where they are operands of products."""

    def __init__(self, site: Site, operands: frozenset[str], round_: Callable[[Array], Array]) -> None:
        self._site, self._operands, self._round = site, operands, round_

    def _rounded(self, name: str, x: Array) -> Array:
        return self._round(x) if name in self._operands else x

    def __call__(self, name: str, x: Array) -> Array:
        return self._rounded(name, self._site(name, x))

    def layer_norm(self, name: str, source: str, x: Array, norm: Params, *, eps: float) -> Array:
        return self._rounded(name, self._site.layer_norm(name, source, x, norm, eps=eps))

    def softmax(self, name: str, source: str, logits: Array) -> Array:
        return self._rounded(name, self._site.softmax(name, source, logits))


def round_mantissa(bits: int, x: Array) -> Array:
    """float32 to the nearest number with so many stored bits of mantissa, ties to even."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)


def emulated(parts: ModelParts, specs: Specs, precision: Precision) -> ModelParts:
    """The network with the operands of its products rounded; they are what scheme `matmul` has specs for."""
    round_ = partial(round_mantissa, MANTISSA[precision])
    names = [name for name, _ in specs]

    def run(fn: Any, prefix: str, params: Params, site: Site, x: Array) -> Array:
        operands = frozenset(name.removeprefix(prefix) for name in names if name.startswith(prefix))
        leaves = flatten(params)
        weights = {name: round_(leaf) if name in operands else leaf for name, leaf in leaves.items()}
        return fn(unflatten(weights), _Rounding(site, operands, round_), x)

    def segment(old: Segment) -> Segment:
        block = partial(run, old.block, old.name + "/")
        return replace(old, enter=partial(run, old.enter, ""), block=block)

    return replace(parts, segments=tuple(map(segment, parts.segments)), head=partial(run, parts.head, ""))


def population(options: Options, block_qparams: QParams) -> QParams:
    """Two candidates for each pair: every site's scales times one factor."""
    rng = np.random.default_rng(options.seed)

    def changed(site_qparams: SiteQParams) -> SiteQParams:
        ratios = rng.uniform(
            -options.spread, options.spread, (2 * options.pairs, *[1] * site_qparams.scale.ndim)
        )
        factors = jnp.asarray(np.exp(ratios), jnp.float32)
        repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], len(factors), 0), site_qparams)
        return repeated._replace(scale=site_qparams.scale * factors)

    scaled = {name: changed(site_qparams) for name, site_qparams in block_qparams.items()}
    return jax.tree.map(lambda leaf: leaf[:, None], scaled)  # of one block


def fitness(
    subject: Subject, sites: dict[str, SiteInfo], specs: Specs, blank: QParams, options: Options
) -> Callable[..., Any]:
    """Gives the candidates' fitness [2 * pairs] at a precision; all else is in float32."""
    parts, params, images = subject.parts, subject.params, subject.normalised()
    with matmul_precision():
        found = calibrate(parts, specs, params, [images], sites=sites, qparams=blank, chunk=options.chunk)
        params, qparams = found.params, found.qparams
        run = jax.jit(lambda params, x: forward(parts, float_reading(params), x))
        chunks = jnp.split(images, [*range(options.chunk, len(images), options.chunk)])
        teacher = jnp.concatenate([run(params, x) for x in chunks])
        network, tokens = at_qparams(specs, params, qparams), subject.tokens(specs, qparams, options.chunk)
        chunk = options.chunk
        inputs = jax.jit(lambda at, tokens: block_inputs(parts, at.reading(specs), tokens, chunk=chunk))
        segment = parts.segments[0]
        index = segment.length // 2
        x = inputs(network, tokens)[segment.name][index]
    candidates = population(options, at(scope(qparams, segment.name), index))
    objective = make_objective(options.fitness)
    context = Context(network, jnp.int32(index), x, Teacher(teacher), jnp.float32(3.0))

    def at_precision(precision: Precision) -> np.ndarray:
        emulate = options.emulate and precision != "float32"
        run = emulated(parts, specs, precision) if emulate else parts
        score = jax.jit(partial(population_fitness, Runner(run, specs, options.chunk), objective))
        with matmul_precision("float32" if emulate else precision):
            return np.asarray(score(context, candidates))

    return at_precision


def main(options: Options) -> None:
    """Prints a row for each precision that there is."""
    subject = load(SubjectOptions(images=options.images))
    sites, specs, blank = subject.quantizers(QuantConfig("matmul", weight_bits=4))
    at_precision, rows = fitness(subject, sites, specs, blank, options), list[dict[str, Any]]()
    exact = at_precision("float32").reshape(-1, 2)
    for precision in MANTISSA:
        try:
            found = at_precision(precision).reshape(-1, 2)
        except UserError as error:
            print(f"{error}, or round operands with --emulate")
            continue
        rows.append(
            {
                "precision": precision + (", emulated" if options.emulate else ""),
                "pairs": len(exact),
                "of which change order": int(changed_order(exact, found)),
                "mean difference in a pair": f"{np.abs(np.diff(exact)).mean():.3g}",
                "root mean square error": f"{np.sqrt(np.mean((found - exact) ** 2)):.3g}",
            }
        )
    print(f"{subject.weights}, {subject.images} images, {options.fitness}, {jax.devices()[0].device_kind}\n")
    if rows:
        print(table(rows))


def changed_order(exact: np.ndarray, found: np.ndarray) -> int:
    """Pairs [pairs, 2] of which the other one is better."""
    return int(((exact[:, 0] < exact[:, 1]) != (found[:, 0] < found[:, 1])).sum())


if __name__ == "__main__":
    run_or_refuse(lambda: main(tyro.cli(Options, description=__doc__)))
