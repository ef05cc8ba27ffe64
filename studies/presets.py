"""What else could the presets `fast` and `strong` do? ViT-Tiny, one addition at a time; docs/results.md.

    python -m studies.presets --data ../shared/data --out runs/preset_study

For the columns of `fully_quantized` add `--schemes fully_quantized --bits W6A6 --variants strong "strong,
shifted_log"`.

Only calibration images take part, so that the study may choose the presets: the seed draws 128 from one half,
and the other half judges. Finished settings are not repeated. Prints the table in Markdown.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from evolq_jax.config.experiment import Experiment
from evolq_jax.config.presets import fast, strong
from evolq_jax.quant.scheme import Scheme
from studies.common.entry import run_or_refuse, study_parser
from studies.common.runs import Row, calibrated_inits
from studies.common.subjects import BITS, SCHEMES, on_halves, vit_tiny, with_setting
from studies.common.tables import markdown

CORRECTIONS = ("ridge", "gptq", "bias")
STRONG = ("ranges", *CORRECTIONS)
SMOOTH = ("ranges", "smooth", *CORRECTIONS)
# The presets have taken up the logarithm below 8 bits; here it is an addition as the others are.
UNIFORM, LOGARITHM = {"gelu_quantizer": "uniform"}, {"gelu_quantizer": "shifted_log"}


class Variant(NamedTuple):
    """A preset and what is changed of it."""

    preset: Callable[[Experiment], Experiment]
    chain: tuple[str, ...]
    quant: Mapping[str, Any] = MappingProxyType({})
    calibration: Mapping[str, Any] = MappingProxyType({})


VARIANTS = {
    "fast": Variant(fast, ("ranges",)),
    "fast, Fisher": Variant(fast, ("ranges",), calibration={"fisher": True}),
    "fast, both ends of weights": Variant(fast, ("ranges",), {"weight_observer": "omse_ends"}),
    "fast, shifted_log": Variant(fast, ("ranges",), LOGARITHM),
    "fast, twin GELU": Variant(fast, ("ranges",), {"gelu_quantizer": "twin"}),
    "fast + own_output": Variant(fast, ("ranges", "own_output")),
    "strong": Variant(strong, STRONG),
    "strong, own_output before gptq": Variant(strong, ("ranges", "ridge", "own_output", "gptq", "bias")),
    "strong, both ends of weights": Variant(strong, STRONG, {"weight_observer": "omse_ends"}),
    "strong, shifted_log": Variant(strong, STRONG, LOGARITHM),
    "strong, twin GELU": Variant(strong, STRONG, {"gelu_quantizer": "twin"}),
    "strong, fold first": Variant(strong, ("ranges", "fold", *CORRECTIONS)),
    "strong, smooth first": Variant(strong, SMOOTH),
    "strong, smooth first, shifted_log": Variant(strong, SMOOTH, LOGARITHM),
    "strong, smooth first, shifted_log, own_output before gptq": Variant(
        strong, ("ranges", "smooth", "ridge", "own_output", "gptq", "bias"), LOGARITHM
    ),
    "strong, tokens by stream alone": Variant(strong, STRONG, calibration={"token_weights": "stream"}),
    "strong, tokens alike": Variant(strong, STRONG, calibration={"token_weights": "equal"}),
    "strong + block_linear": Variant(strong, (*STRONG, "block_linear")),
}


def make(config: Experiment, scheme: Scheme, bits: str, name: str, seed: int) -> Experiment:
    """One setting's config, from one with the two halves of the calibration images."""
    variant = VARIANTS[name]
    config = variant.preset(replace(with_setting(config, scheme, bits), seed=seed))
    calibration = replace(config.calibration, chain=variant.chain, **variant.calibration)
    quant = replace(config.quant, **{**UNIFORM, **variant.quant})
    return replace(config, quant=quant, calibration=calibration)


def table(results: list[Row]) -> str:
    """Markdown: a row a variant, columns by scheme and bits: KL (lowest to highest over seeds), agreement."""
    columns = dict.fromkeys((result["scheme"], result["bits"]) for result in results)
    heads = [f"{what}, `{scheme}` {bits}" for scheme, bits in columns for what in ("KL", "agreement")]
    found = {result["name"] for result in results}
    rows: list[list[str]] = []
    for name in filter(found.__contains__, VARIANTS):
        row = [name]
        for column in columns:
            runs = [r for r in results if r["name"] == name and (r["scheme"], r["bits"]) == column]
            row += _cells(runs) if runs else ["–"] * 2
        rows.append(row)
    return markdown(["initialisation", *heads], rows)


def _cells(runs: list[Row]) -> list[str]:
    kl, agreement = ([run[key] for run in runs] for key in ("kl", "agreement"))
    spread = f" ({min(kl):.3f} to {max(kl):.3f}; {len(kl)} seeds)" if len(kl) > 1 else ""
    return [f"{np.mean(kl):.3f}{spread}", f"{100 * np.mean(agreement):.1f}"]


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = study_parser(__doc__, "preset_study")
    parser.add_argument("--schemes", choices=SCHEMES, nargs="+", default=["matmul"])
    parser.add_argument("--bits", choices=BITS, nargs="+", default=["W6A6", "W3A8", "W4A4"])
    parser.add_argument("--variants", choices=VARIANTS, nargs="+", default=list(VARIANTS))
    args = parser.parse_args()
    halves = on_halves(vit_tiny(args.data, 4, "matmul", "plain", 0), args.out)
    wanted = (
        (
            {"scheme": scheme, "bits": bits, "name": name, "seed": seed},
            make(halves, scheme, bits, name, seed),
        )
        for seed, scheme, bits, name in itertools.product(args.seeds, args.schemes, args.bits, args.variants)
        if scheme == "matmul" or "block_linear" not in VARIANTS[name].chain  # reads the stream in float
    )
    print(table(calibrated_inits(args.out, wanted)))


if __name__ == "__main__":
    run_or_refuse(main)
