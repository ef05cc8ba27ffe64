"""The scans of real networks in docs/landscapes.md.

    python -m studies.landscape --data ../shared/data --out runs/landscapes

They scan a ViT and a ResNet-20 on the same CIFAR-10 images, along the same kinds of directions, and ViT-Tiny
layer by layer. This takes about 40 minutes on two CPU cores. Finished scans are not repeated. Prints a table
in Markdown.
"""

from dataclasses import replace
from pathlib import Path

from evolq_jax.cli.progress import make_watcher
from evolq_jax.config.experiment import Experiment, LandscapeConfig
from evolq_jax.runs.directory import LANDSCAPE
from evolq_jax.runs.results.files import read_result
from evolq_jax.runs.results.landscape import LandscapeResult
from evolq_jax.verbs.landscape.run import run_landscape
from studies.common.entry import run_or_refuse, study_parser
from studies.common.subjects import cifar, plain_ranges, vit_tiny
from studies.common.tables import markdown

COARSE, FINE = "gaussian, 10 %", "gaussian, 0.5 %"
ON_CIFAR = {
    COARSE: LandscapeConfig(points=201, num_images=500),
    FINE: LandscapeConfig(points=101, num_images=300, directions=3, epsilon=0.005),
    "uniform": LandscapeConfig(points=101, num_images=300, directions=3, direction="uniform", epsilon=1e-3),
    "plane": LandscapeConfig(kind="plane", points=31, num_images=128, batch_size=64),
}
LAYERS = LandscapeConfig(
    kind="layers", points=15, directions=2, losses=("kl", "info_nce"), temperatures=(3.0,), num_images=50
)
LOSSES = ("cross_entropy", "info_nce_t0.3", "info_nce_t3", "kl", "mse")


def scans(data: Path) -> dict[str, tuple[Experiment, LandscapeConfig]]:
    """Every scan by the name of its directory: `fully_quantized` W4A8, all weights' scales."""
    found: dict[str, tuple[Experiment, LandscapeConfig]] = {}
    for subject in ("cifar_vit", "cifar_resnet20"):
        config = cifar(data, subject, 4, 8)
        quant = replace(config.quant, scheme="fully_quantized")
        few = replace(config.data, num_calibration=100, num_evaluation=1000)
        config = replace(config, quant=quant, data=few)
        for name, scan in ON_CIFAR.items():
            scan = replace(scan, images="evaluation", sites=("*/weight",))
            found[f"{subject}, {name}"] = config, scan
    found["vit_tiny, layers"] = plain_ranges(vit_tiny(data, 4, "matmul", "plain", 0)), LAYERS
    return found


def table(results: dict[str, LandscapeResult]) -> str:
    """Markdown: range, roughness and minima of each scan's losses at the grid's spacing."""
    rows: list[list[str]] = []
    for name, result in results.items():
        for loss in filter(result.jaggedness.__contains__, LOSSES):
            numbers = result.jaggedness[loss]
            cells = [f"{numbers.range[1].mean:.3g}"]
            for number in (numbers.roughness, numbers.minima_per_unit):
                cells += [f"{number[stride].mean:.2g}" for stride in (1, 4)]
            rows.append([name, loss, *cells])
    head = "scan", "loss", "range", "roughness", "at 4 spacings", "minima per unit", "at 4 spacings"
    return markdown(head, rows)


def main() -> None:
    """Runs what is missing, then prints the table."""
    args = study_parser(__doc__, "landscapes", seeds=False).parse_args()
    results: dict[str, LandscapeResult] = {}
    for name, (config, scan) in scans(args.data).items():
        path = args.out / name.replace(", ", "-").replace(" %", "pct").replace(" ", "")
        if not (path / LANDSCAPE).is_file():
            with make_watcher() as watcher:
                run_landscape(config, scan, path, watcher)
        results[name] = read_result(path, LandscapeResult)
    print(table(results))


if __name__ == "__main__":
    run_or_refuse(main)
