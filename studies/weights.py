"""The distributions of weights in docs/landscapes.md: a ViT's and a CNN's, float and quantized.

    python -m studies.weights --data ../shared/data --out runs/weights

It takes seconds and needs no images. Writes an `.npz`, a PNG, an SVG and a PDF for every network and number
of bits, and prints a table in Markdown.
"""

from pathlib import Path

import jax
import numpy as np

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.config.experiment import Experiment
from evolq_jax.landscape.weights import Distribution, draw_weights, weight_distributions
from evolq_jax.pipeline.load import load_model
from studies.common.entry import run_or_refuse, study_parser
from studies.common.subjects import cifar, vit_tiny
from studies.common.tables import markdown

BITS = (4, 3)
LAYERS = {"qkv": "attn/qkv", "proj": "attn/proj", "fc1": "mlp/fc1", "fc2": "mlp/fc2"}
GROUPS = {
    "vit_tiny": {name: (f"blocks/{path}/weight",) for name, path in LAYERS.items()},
    "cifar_resnet20": {f"layer{n}": (f"layer{n}*/conv*/weight",) for n in (1, 2, 3)},
}
HEAD = "network", "layers", "std", "excess kurtosis", "std in steps", "kurtosis in steps", "zeros %", "SNR dB"


def make(data: Path, subject: str, bits: int) -> Experiment:
    """The network and its weights' quantizers: per output channel, by least squared error."""
    if subject == "vit_tiny":
        return vit_tiny(data, bits, "matmul", "plain", 0)
    return cifar(data, subject, bits, 8)


def measured(data: Path, subject: str, bits: int) -> dict[str, Distribution]:
    """The distributions of one network at one number of bits."""
    setup = load_model(make(data, subject, bits))
    weights = tuple((name, spec) for name, spec in setup.specs if setup.sites[name].is_weight)
    params = setup.model.params
    qparams = calibrate(
        setup.model.parts, weights, params, (), sites=setup.sites, qparams=setup.blank_qparams
    ).qparams
    return weight_distributions(weights, params, jax.device_get(qparams), GROUPS[subject])


def rows(title: str, distributions: dict[str, Distribution]) -> list[list[str]]:
    """Of the Markdown table: float → quantized."""
    found: list[list[str]] = []
    for group, one in distributions.items():
        pairs = [
            f"{one[name][0]:.{digits}f} → {one[name][1]:.{digits}f}"
            for name, digits in (("std", 4), ("kurtosis", 2), ("steps_std", 2), ("steps_kurtosis", 2))
        ]
        found.append([title, group, *pairs, f"{100 * one['zeros']:.0f}", f"{one['snr']:.1f}"])
    return found


def main() -> None:
    """Measures all, writes arrays and pictures, and prints the table."""
    args = study_parser(__doc__, "weights", seeds=False).parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    lines: list[list[str]] = []
    for subject in GROUPS:
        for bits in BITS:
            name, found = f"{subject}_weights_w{bits}", measured(args.data, subject, bits)
            arrays = {f"{group}/{key}": value for group, one in found.items() for key, value in one.items()}
            np.savez(args.out / f"{name}.npz", **arrays)  # type: ignore[arg-type]
            for file, content in draw_weights(found, name):
                (args.out / file).write_bytes(content)
            lines += rows(f"{subject}, W{bits}", found)
    print(markdown(HEAD, lines))


if __name__ == "__main__":
    run_or_refuse(main)
