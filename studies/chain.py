"""Every step of the calibration chain, alone and cumulated: ViT-Tiny, no search; docs/results.md.

    python -m studies.chain --data ../shared/data --out runs/chain_study --images 32 128 1000

Alone, a step stands beside the plain ranges (squared error for weights, min-max for activations). Cumulated,
each step comes on top of those before it. Scores are on all validation images. There are 1,000 calibration
images in all; with all of them there is nothing to draw, so there is one seed. Finished settings are not
repeated. Prints the table in Markdown.
"""

import argparse
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from evolq_jax.config.experiment import Experiment
from evolq_jax.config.presets import fast
from studies.common.entry import run_or_refuse, study_parser
from studies.common.runs import Row, calibrated_inits
from studies.common.subjects import ALL_IMAGES, BATCH, BITS, SCHEMES, vit_tiny, with_setting
from studies.common.tables import init_cells, markdown


class Step(NamedTuple):
    """What a row changes: the chain, the quantizers and observers, or settings of the calibration."""

    chain: tuple[str, ...] = ("ranges",)
    quant: Mapping[str, Any] = MappingProxyType({})
    calibration: Mapping[str, Any] = MappingProxyType({})


ALONE = {
    "plain ranges": Step(),
    "squared error for activations": Step(quant={"activation_observer": "omse"}),
    "both ends by squared error": Step(
        quant={"activation_observer": "omse_ends", "weight_observer": "omse_ends"}
    ),
    "Fisher weights": Step(quant={"activation_observer": "omse"}, calibration={"fisher": True}),
    "power-of-two factors": Step(quant={"activation_observer": "pow2", "residual_observer": "pow2"}),
    "twin ranges": Step(quant={"softmax_quantizer": "twin", "gelu_quantizer": "twin"}),
    "logarithms": Step(quant={"softmax_quantizer": "log", "gelu_quantizer": "shifted_log"}),
    "smooth": Step(("ranges", "smooth")),
    "fold": Step(("ranges", "fold")),
    "clip": Step(("ranges", "clip")),
    "own_output": Step(("ranges", "own_output")),
    "bias": Step(("ranges", "bias")),
    "ridge": Step(("ranges", "ridge")),
    "gptq": Step(("ranges", "gptq")),
    "block_linear": Step(("ranges", "block_linear")),
}
# On the ranges of `fast`; the last but one is `strong`.
CUMULATED = {
    "the ranges of fast": Step(),
    "… + ridge": Step(("ranges", "ridge")),
    "… + gptq": Step(("ranges", "ridge", "gptq")),
    "… + bias (strong)": Step(("ranges", "ridge", "gptq", "bias")),
    "… + block_linear": Step(("ranges", "ridge", "gptq", "bias", "block_linear")),
}
MATMUL_ONLY = ("block_linear", "… + block_linear")  # reads the residual stream in float


def make(data: Path, scheme: str, bits: str, name: str, images: int, seed: int) -> Experiment:
    """One setting's config."""
    config = with_setting(vit_tiny(data, 4, scheme, "plain", seed), scheme, bits, images)
    config, step = (fast(config), CUMULATED[name]) if name in CUMULATED else (config, ALONE[name])
    calibration = replace(config.calibration, chain=step.chain, **step.calibration)
    return replace(config, quant=replace(config.quant, **step.quant), calibration=calibration)


def settings(args: argparse.Namespace) -> list[tuple[int, int, str, str]]:
    """(images, seed, scheme, step) of every run, the most wanted first."""
    draws = [(number, seed) for seed in args.seeds for number in args.images if number < ALL_IMAGES]
    draws += [(ALL_IMAGES, args.seeds[0])] if ALL_IMAGES in args.images else []
    names: list[str] = args.steps or [*ALONE, *CUMULATED]
    return [
        (number, seed, scheme, name)
        for number, seed in draws
        for scheme, name in itertools.product(args.schemes, names)
        if scheme == "matmul" or name not in MATMUL_ONLY
    ]


def tables(results: list[Row]) -> str:
    """Markdown, a table for each scheme."""
    schemes = [scheme for scheme in SCHEMES if any(result["scheme"] == scheme for result in results)]
    return "\n\n".join(
        f"`{scheme}`:\n\n{table([result for result in results if result['scheme'] == scheme])}"
        for scheme in schemes
    )


def table(results: list[Row]) -> str:
    """A row a step, columns by number of images; means over seeds."""
    numbers = sorted({result["images"] for result in results})
    found = {result["name"] for result in results}
    rows: list[list[str]] = []
    for name in filter(found.__contains__, (*ALONE, *CUMULATED)):
        row = [name]
        for number in numbers:
            runs = [r for r in results if (r["name"], r["images"]) == (name, number)]
            row += init_cells(runs) if runs else ["–"] * 4
        rows.append(row)
    heads = [f"{what}, {number}" for number in numbers for what in ("top-1", "agreement", "KL", "s")]
    return markdown(["step", *heads], rows)


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = study_parser(__doc__, "chain_study")
    parser.add_argument("--bits", choices=BITS, default="W4A8")
    parser.add_argument("--schemes", choices=SCHEMES, nargs="+", default=SCHEMES)
    parser.add_argument("--images", type=int, choices=BATCH, nargs="+", default=[32, 128, ALL_IMAGES])
    parser.add_argument("--steps", choices=[*ALONE, *CUMULATED], nargs="+")
    args = parser.parse_args()
    wanted = (
        (
            {"scheme": scheme, "bits": args.bits, "name": name, "images": images, "seed": seed},
            make(args.data, scheme, args.bits, name, images, seed),
        )
        for images, seed, scheme, name in settings(args)
    )
    print(tables(calibrated_inits(args.out, wanted)))


if __name__ == "__main__":
    run_or_refuse(main)
