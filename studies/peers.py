"""`strong`, counted like RepQ-ViT, PTQ4ViT, ERQ and AdaLog: ViT-Tiny, no search; docs/results.md.

    python -m studies.peers --data ../shared/data --out runs/peer_study

32 calibration images calibrate, and all validation images score. Inputs and weights of matrix products are
quantized. First and last layers have as few bits as the rest, but the image stays the 8-bit pixels it comes
as. One variant has the preset's power-of-two factors by channel, the other has one scale for each activation,
like the peers. Finished settings are not repeated. Prints the table in Markdown.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from evolq_jax.config.experiment import Experiment
from evolq_jax.config.presets import strong
from studies.common.entry import run_or_refuse, study_parser
from studies.common.runs import calibrated_inits
from studies.common.subjects import BITS, vit_tiny, with_setting
from studies.common.tables import init_table

IMAGES = 32
COLUMNS = ("W8A8", "W6A6", "W4A8", "W3A8", "W4A4")


def alike(config: Experiment) -> Experiment:
    """`strong` with all layers at the same bits."""
    config = strong(config)
    return replace(config, quant=replace(config.quant, edge_weight_bits=None, edge_activation_bits=None))


def by_tensor(config: Experiment) -> Experiment:
    """The same without factors by channel. What is uneven after LayerNorm is folded into weights."""
    config = alike(config)
    chain = ("ranges", "fold", *config.calibration.chain[1:])
    return replace(
        config,
        quant=replace(config.quant, activation_observer="omse"),
        calibration=replace(config.calibration, chain=chain),
    )


VARIANTS: dict[str, Callable[[Experiment], Experiment]] = {
    "strong, all layers alike": alike,
    "strong, all layers alike, one scale an activation": by_tensor,
}


def make(data: Path, bits: str, name: str, seed: int) -> Experiment:
    """One setting's config."""
    return VARIANTS[name](with_setting(vit_tiny(data, 4, "matmul", "plain", seed), "matmul", bits, IMAGES))


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = study_parser(__doc__, "peer_study")
    parser.add_argument("--bits", nargs="+", choices=BITS, default=COLUMNS)
    parser.add_argument("--variants", choices=VARIANTS, nargs="+", default=list(VARIANTS))
    args = parser.parse_args()
    wanted = (
        ({"scheme": "matmul", "bits": bits, "name": name, "seed": seed}, make(args.data, bits, name, seed))
        for seed, bits, name in itertools.product(args.seeds, args.bits, args.variants)
    )
    print(init_table(calibrated_inits(args.out, wanted)))


if __name__ == "__main__":
    run_or_refuse(main)
