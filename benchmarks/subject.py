"""What is measured: ViT-Tiny with real weights and images, or without them with random ones from a seed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.data import load_images
from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.models.registry import VIT, get_entry, param_shapes
from evolq_jax.models.vit import ViTConfig
from evolq_jax.network.parts import ModelParts
from evolq_jax.network.point import at_qparams
from evolq_jax.network.run import normalize
from evolq_jax.network.sites import list_sites
from evolq_jax.network.walk import embed
from evolq_jax.quant.qparams import QParams, blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.spec import Specs
from evolq_jax.trees import unflatten
from evolq_jax.typing import Array, Params, Preprocessing, SiteInfo

MODEL = "vit_tiny_patch16_224"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Options:
    """What to measure on, and for how long.

    Attributes:
      weights: checkpoint of ViT-Tiny/16 at 224; None: the one in ../shared/data, else random weights.
      calibration: folder of images; None: the one in ../shared/data, else random images.
      images: calibration images.
      repeats: measurements of everything, of which medians are taken.
      quick: 20 images, everything once, fewer settings: minutes, and coarser.
      json: also write the numbers to this file.
    """

    weights: Path | None = None
    calibration: Path | None = None
    images: int = 100
    repeats: int = 3
    quick: bool = False
    json: Path | None = None


class Subject(NamedTuple):
    """A network and images."""

    config: ViTConfig
    parts: ModelParts
    params: Params
    preprocessing: Preprocessing
    pixels: Array  # uint8 [B, 224, 224, 3]
    weights: str  # where they are from
    images: str

    def normalised(self) -> Array:
        """Images as the network wants them [B, 224, 224, 3]."""
        return jax.jit(normalize, static_argnums=0)(self.preprocessing, self.pixels)

    def quantizers(self, quant: QuantConfig) -> tuple[dict[str, SiteInfo], Specs, QParams]:
        """The quantization points, what they become under `quant`, and their numbers before calibration."""
        sites = list_sites(self.parts, self.params, self.pixels.shape[1:])
        specs, bits = resolve(quant, sites)
        return sites, specs, blank_qparams(specs, bits, sites)

    def tokens(self, specs: Specs, qparams: QParams, chunk: int) -> Array:
        """The images at the first block's input, quantized [B, N, D]."""

        @jax.jit
        def run(params: Params, qparams: QParams, pixels: Array) -> Array:
            reading = at_qparams(specs, params, qparams).reading(specs)
            return embed(self.parts, reading, pixels, preprocessing=self.preprocessing, chunk=chunk)

        return run(self.params, qparams, self.pixels)

    def with_depth(self, depth: int) -> "Subject":
        """The same network cut off after `depth` blocks."""
        config = replace(self.config, depth=depth)
        blocks = jax.tree.map(lambda leaf: leaf[:depth], self.params["blocks"])
        return self._replace(config=config, parts=VIT.make(config), params=self.params | {"blocks": blocks})


def load(options: Options) -> Subject:
    """Weights and images; the subject says where each is from.

    Raises:
      UserError: a file or folder that was named is missing or wrong.
    """
    entry, number = get_entry(MODEL), 20 if options.quick else options.images
    found = sorted((DATA / "weights").glob(f"{MODEL}*.safetensors"))
    weights = options.weights or (found[0] if found else None)
    folder = DATA / "imagenet" / "calib"
    folder = options.calibration or (folder if folder.is_dir() else None)
    rng = np.random.default_rng(0)
    if weights:
        network = load_checkpoint(MODEL, weights)
        parts, params, preprocessing, config = (
            network.parts,
            network.params,
            network.preprocessing,
            network.config,
        )
    else:
        parts, params = entry.make(), _random_params(rng, entry.config)
        preprocessing, config = entry.preprocessing, entry.config
    if folder:
        pixels = load_images(folder, preprocessing, num=number, cache_dir=None).pixels
    else:
        pixels = rng.integers(0, 256, (number, config.image_size, config.image_size, 3), dtype=np.uint8)
    sources = weights.name if weights else "random", folder.name if folder else "random"
    return Subject(config, parts, params, preprocessing, jnp.asarray(pixels), *sources)


def _random_params(rng: np.random.Generator, config: ViTConfig) -> Params:
    def leaf(name: str, shape: tuple[int, ...]) -> Array:
        values = 0.02 * rng.standard_normal(shape, dtype=np.float32)
        return jnp.asarray(values + 1.0 if "norm" in name and name.endswith("weight") else values)

    return unflatten({name: leaf(name, shape) for name, shape in param_shapes(VIT, config).items()})
