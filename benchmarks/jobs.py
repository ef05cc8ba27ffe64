"""The commands that `compilations` and `first_run` watch."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.subject import DATA

QUICKSTART = ["search", "configs/digits_w2a8.py"]
SHORT = ["--search.generations", "1"]  # one a visit: no further program comes with more of them
PLANE = ["--landscape.kind", "plane", "--landscape.points", "3", "--landscape.num-images", "20"]
DESCENT = ["--baseline.budget", "600"]
_VIT = "configs/vit_tiny_w4a8.py"


@dataclass(frozen=True)
class Options:
    """What to watch.

    Attributes:
      jobs: some of the names; none: all.
      data: the folder with real weights and images of ViT-Tiny. Without it only the digits are watched.
      images: calibration images of ViT-Tiny, and as many to score.
    """

    jobs: tuple[str, ...] = ()
    data: Path = DATA
    images: int = 100


def jobs(options: Options) -> dict[str, list[str]]:
    """The arguments of `evolq` by a short name. Those for ViT-Tiny are cut short."""
    found = {"quickstart": QUICKSTART}
    if options.data.is_dir():
        vit = _on_real_weights(options)
        found |= {
            "ViT-Tiny, default (strong)": ["search", _VIT, *vit, *SHORT],
            "ViT-Tiny, plain": ["search", _VIT, *vit, *SHORT, "--preset", "plain"],
            "ViT-Tiny, faithful": ["search", _VIT, *vit, *SHORT, "--preset", "faithful"],
            "ViT-Tiny, plane": ["landscape", _VIT, *vit, "--preset", "plain", *PLANE],
            "ViT-Tiny, descent": ["baseline", _VIT, *vit, "--preset", "plain", *DESCENT],
        }
    return {name: found[name] for name in options.jobs or found}


def _on_real_weights(options: Options) -> list[str]:
    images, weights = options.data / "imagenet", options.data / "weights"
    return [
        *("--model.weights", str(weights / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors")),
        *("--data.calibration", str(images / "calib")),
        *("--data.evaluation", str(images / "val")),
        *("--data.class-index", str(images / "synsets.txt")),
        *("--data.num-calibration", str(options.images), "--data.num-evaluation", str(options.images)),
    ]
