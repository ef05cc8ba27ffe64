"""Memory and speed of searches of the other families, on random weights and images from a seed.

    python -m benchmarks.families
    python -m benchmarks.families --models swin_tiny_patch4_window7_224 --images 20

Each network runs in its own process. It writes a checkpoint, then calibrates, searches one pass and
evaluates, as `evolq search` does. Candidate-images per second are the median over generations; most of these
compile nothing. Random weights say nothing about accuracy.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.entry import run_or_refuse
from benchmarks.memory import peak_mib
from evolq_jax.config.experiment import (
    CalibrationConfig,
    DataConfig,
    Experiment,
    ModelConfig,
    QuantConfig,
    SearchConfig,
)
from evolq_jax.config.presets import plain
from evolq_jax.models.checkpoint import save_params
from evolq_jax.models.registry import get_entry, param_shapes
from evolq_jax.trees import unflatten
from evolq_jax.verbs.search.plan import plan_search
from evolq_jax.verbs.search.run import run_search

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("swin_tiny_patch4_window7_224", "levit_128s", "levit_256", "resnet18", "regnetx_032")


def random_parameter(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A leaf that keeps activations of the order of one: norms near one, weights by their inputs."""
    values = rng.standard_normal(shape, dtype=np.float32)
    if "token" in name or "pos" in name:  # small ones would be zero in 8 bits, which have no LayerNorm
        return values
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) <= 2 and "norm" in name):
        return np.exp(0.1 * values)
    if name.endswith("weight") and len(shape) > 1:
        return values / np.float32(np.sqrt(np.prod(shape[-2:]) / shape[-1]))
    return 0.02 * values


def prepare(model: str, images: int, folder: Path) -> Experiment:
    """A checkpoint and images in `folder`, and the default search on them."""
    entry, rng = get_entry(model), np.random.default_rng(0)
    shapes = param_shapes(entry.family, entry.config)
    params = unflatten({name: random_parameter(rng, name, shape) for name, shape in shapes.items()})
    save_params(folder / "weights.safetensors", params, {"model": model})
    size = entry.preprocessing.size
    pixels = rng.integers(0, 256, (2 * images, size, size, 3), dtype=np.uint8)
    for name, part in zip(("calibration", "evaluation"), np.split(pixels, 2), strict=True):
        np.savez(folder / f"{name}.npz", image=part)
    data = DataConfig(
        str(folder / "calibration.npz"), str(folder / "evaluation.npz"), num_calibration=images, cache=None
    )
    config = Experiment(
        name=model,
        model=ModelConfig(model, str(folder / "weights.safetensors")),
        data=data,
        quant=QuantConfig("matmul", weight_bits=4, activation_bits=8),
        calibration=CalibrationConfig(batch_size=images),
        search=SearchConfig(batch_size=images // 2),
        evaluation_batch=10,
    )
    return plain(config)


def child(model: str, images: int) -> None:
    """One network; prints its numbers as JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = prepare(model, images, folder)
        plan = plan_search(config)
        before = peak_mib()
        result = run_search(config, folder / "run")
        log = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    spent, seconds = (np.diff([line[key] for line in log]) for key in ("candidate_images", "seconds"))
    numbers = {
        "before": before,
        "peak": peak_mib(),
        "rate": float(np.median(spent / seconds)),
        "float": plan.float_images_per_second,
        "seconds": result.seconds,
    }
    print(json.dumps(numbers))


def row(model: str, images: int) -> dict[str, Any]:
    """A network's line."""
    code = f"from benchmarks.families import child; child({model!r}, {images})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        "network": model,
        "float images/s": f"{found['float']:.0f}",
        "candidate-images/s": f"{found['rate']:.0f}",
        "ratio": f"{found['rate'] / found['float']:.2f}",
        "MiB before the search": f"{found['before']:.0f}",
        "MiB at most": f"{found['peak']:.0f}",
        "seconds in all": f"{found['seconds']:.0f}",
    }


def main() -> None:
    """Prints the table in Markdown."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument(
        "--images", type=int, default=20, help="calibration images, and as many to evaluate on"
    )
    args = parser.parse_args()
    for model in args.models:
        get_entry(model)  # refused here, not in the process that measures it
    for number, model in enumerate(args.models):
        cells = row(model, args.images)
        if not number:
            print("| " + " | ".join(cells) + " |\n" + "|---" * len(cells) + "|")
        print("| " + " | ".join(cells.values()) + " |", flush=True)


if __name__ == "__main__":
    run_or_refuse(main)
