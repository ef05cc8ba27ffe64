"""ViT-Tiny before any search, by bits, scheme and preset; docs/results.md.

    python -m studies.init --data ../shared/data --out runs/init_study

Every setting is calibrated on 128 images, drawn by the seed, and scored on all validation images. Finished
settings are not repeated, so a killed study goes on where it was. Prints the tables in Markdown.
"""

import itertools
from pathlib import Path

from evolq_jax.config.experiment import Experiment
from evolq_jax.config.presets import faithful, strong
from studies.common.entry import run_or_refuse, study_parser
from studies.common.runs import calibrated_inits
from studies.common.subjects import BITS, SCHEMES, only_ranges, vit_tiny, with_setting
from studies.common.tables import init_table

# `ranges` are those of `strong`, without its corrections.
PRESETS = {"faithful": faithful, "ranges": lambda config: only_ranges(strong(config)), "strong": strong}


def settings(seeds: list[int]) -> list[tuple[str, str, str, int]]:
    """(scheme, bits, preset, seed) of every run, the most wanted first."""
    return [
        (scheme, bits, preset, seed)
        for seed, scheme, bits, preset in itertools.product(seeds, SCHEMES, BITS, PRESETS)
    ]


def make(data: Path, scheme: str, bits: str, preset: str, seed: int) -> Experiment:
    """One setting's config."""
    return PRESETS[preset](with_setting(vit_tiny(data, 4, scheme, "plain", seed), scheme, bits))


def main() -> None:
    """Runs what is missing, then prints the table."""
    parser = study_parser(__doc__, "init_study")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES, help="those rows alone")
    parser.add_argument("--bits", nargs="+", choices=BITS, default=BITS, help="those rows alone")
    args = parser.parse_args()
    wanted = (
        (
            {"scheme": scheme, "bits": bits, "name": name, "seed": seed},
            make(args.data, scheme, bits, name, seed),
        )
        for scheme, bits, name, seed in settings(args.seeds)
        if scheme in args.schemes and bits in args.bits
    )
    print(init_table(calibrated_inits(args.out, wanted)))


if __name__ == "__main__":
    run_or_refuse(main)
