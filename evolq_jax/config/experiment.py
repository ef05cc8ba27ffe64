"""An experiment as one frozen dataclass.

A config file (`configs/*.py`) holds `config = Experiment(...)`. The command line overrides single fields.
"""

from dataclasses import dataclass, field, replace

from evolq_jax.calibration.chain import CORRECTED, LINKS, check_chain, find_links
from evolq_jax.calibration.link import FLOAT_STREAM, LayerLink, Link, TokenWeighting, WalkConfig
from evolq_jax.calibration.links.clip import ClipConfig
from evolq_jax.calibration.links.ranges import RangesConfig
from evolq_jax.calibration.links.ridge import RidgeConfig
from evolq_jax.calibration.reconstruction.config import BrecqConfig
from evolq_jax.config.plugins import Plugin, loaded_plugins
from evolq_jax.config.preprocessing import PreprocessingConfig
from evolq_jax.config.values import check_values
from evolq_jax.data.config import DataConfig
from evolq_jax.devices.memory import check_amount
from evolq_jax.devices.mesh import parse_mesh
from evolq_jax.devices.precision import Precision
from evolq_jax.errors import UserError, check_at_least_one
from evolq_jax.gradient.config import BaselineConfig
from evolq_jax.landscape.config import LandscapeConfig
from evolq_jax.named import check_names
from evolq_jax.paths import is_plain_word
from evolq_jax.quant.qparams import check_bits
from evolq_jax.quant.scheme import QuantConfig, Rule
from evolq_jax.search.config import SearchConfig
from evolq_jax.training import TrainConfig, TrainExperiment

__all__ = [
    "BaselineConfig",
    "BrecqConfig",
    "CalibrationConfig",
    "CheckpointConfig",
    "ClipConfig",
    "DataConfig",
    "Experiment",
    "LandscapeConfig",
    "ModelConfig",
    "PreprocessingConfig",
    "QuantConfig",
    "Rule",
    "SearchConfig",
    "TrainConfig",
    "TrainExperiment",
]


@dataclass(frozen=True)
class ModelConfig:
    """Which network, with which weights.

    Attributes:
      name: a model of the registry (`evolq models` lists them).
      weights: a `.safetensors` or `.npz` file, the index of shards, a folder, or `hf-hub:owner/name`; None:
        the weights that evolq_jax ships for this model.
    """

    name: str = "vit_tiny_patch16_224"
    weights: str | None = None


@dataclass(frozen=True)
class CalibrationConfig:
    """How the first scales are found.

    Attributes:
      chain: the links, in order. The first is `ranges`, the paper's calibration; the default is the best
        known. The end of `--help` says what each link does, and docs/initialisation.md says it in full. After
        a link that rounds weights, a search moves scales, not integers. Python may pass a link of its own in
        place of a name.
      damping: how strongly `ridge` holds on to the float weights, relative to each input's second moment.
      pull: the share of the stream's error, from 0 to 1, that `ridge` and `bias` correct at the end of a
        branch.
      token_weights: how layer-wise links weigh tokens. `fisher`: by how much a token matters to the network's
        output and, if a LayerNorm follows, by the size of its stream. `stream`: by that size alone. `equal`:
        all alike.
      fisher: whether observers that compare errors weigh them by how much each value matters to the network's
        output. The weights are squared gradients towards the float network's probabilities; they need no
        labels.
      brecq: settings of `brecq`.
      clip: settings of `clip`.
      batch_size: images of a batch. Smoothing observers update once a batch; `omse` and `ptf` score a batch.
        None: 100, or what divides the number of images.
      image_chunk: images that run at once.
    """

    chain: tuple[str | Link, ...] = CORRECTED
    damping: float = 3.0
    pull: float = 0.9
    token_weights: TokenWeighting = "fisher"
    fisher: bool = False
    brecq: BrecqConfig = field(default_factory=BrecqConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    batch_size: int | None = None
    image_chunk: int = 10

    def __post_init__(self) -> None:
        """Rejects unknown links and sizes that mean nothing."""
        if self.batch_size is not None:
            check_at_least_one("calibration.batch_size", self.batch_size)
        check_at_least_one("calibration.image_chunk", self.image_chunk)
        if not self.damping > 0:
            raise UserError(f"calibration.damping must be positive, not {self.damping}")
        if not 0 <= self.pull <= 1:
            raise UserError(f"calibration.pull must be from 0 to 1, not {self.pull}")
        check_names(self.chain, LINKS, "calibration.chain")
        check_chain(self.links)

    @property
    def walk(self) -> WalkConfig:
        """How walks through the layers weigh what they see."""
        return WalkConfig(self.pull, self.token_weights)

    @property
    def links(self) -> tuple[Link, ...]:
        """The links of the chain, with the settings that this config has for them."""
        return tuple(self.with_settings(link) for link in find_links(self.chain))

    def with_settings(self, link: Link) -> Link:
        """A link with the settings that this config has for it. A link that Python passed keeps its own."""
        if link.name not in LINKS:
            return link
        if isinstance(link, LayerLink):
            link = replace(link, walk=self.walk)
        ranges = RangesConfig(self.fisher)
        settings = {
            "ranges": ranges,
            "smooth": ranges,
            "fold": ranges,
            "clip": self.clip,
            "ridge": RidgeConfig(self.damping),
            "brecq": self.brecq,
        }
        return replace(link, settings=settings.get(link.name))


@dataclass(frozen=True)
class CheckpointConfig:
    """How a search or a descent is saved while it runs. The result does not depend on it.

    Attributes:
      every_seconds: least time between two checkpoints. A search makes them at the end of a block's visit, a
        descent after a step. So a kill costs this time and one visit or step.
      keep: how many of the last checkpoints are kept.
    """

    every_seconds: float = 30.0
    keep: int = 2

    def __post_init__(self) -> None:
        """Rejects numbers that mean nothing."""
        check_at_least_one("checkpoint.keep", self.keep)
        if not self.every_seconds >= 0:
            raise UserError(f"checkpoint.every_seconds must not be negative: {self.every_seconds}")


MAX_MILESTONES = 1000  # the scales of each are kept and scored


@dataclass(frozen=True)
class Experiment:
    """Everything a run depends on.

    Attributes:
      name: the run's directory and its tables have this name.
      model: the network and its weights.
      preprocessing: what of the checkpoint's own preprocessing of images is replaced.
      data: calibration and evaluation images.
      quant: which sites are quantized, and how.
      calibration: how the first scales are found.
      search: the evolutionary search.
      landscape: the scan of the loss over scale space.
      baseline: gradient descent in the search's place.
      checkpoint: how a search or a descent is saved while it runs.
      start: a finished or calibrated run of the same model, quantizers and calibration. A search or baseline
        then starts from its result, in place of calibrating.
      milestones: into how many parts the budget of a search or baseline is cut. The scales at each cut are
        scored at the end of the run; this selects nothing. 0: none.
      memory: how much of the device's memory a search may take, such as `12GiB`, or `device` for all of it.
        Chunks and caches shrink until the estimate fits; on accelerators chunks that are not set grow first.
        None: half of an accelerator's memory; on a CPU they stay as they are set.
      mesh: over how many devices the candidates of a population and the images are spread, such as
        `candidate=4,data=2`. An axis that is left out gets the other devices. None: all devices, spread
        automatically (docs/scaling.md).
      precision: of matrix products: `float32`, or `tf32` or `bfloat16` if the hardware has it. These are
        faster, and change the order of candidates that are nearly as good (docs/scaling.md).
      evaluation_batch: images of one evaluation batch, on each device.
      seed: draws the calibration images, and drives block reconstruction, searches and descents.
      plugins: those that are loaded, for the record (`--plugin`).
    """

    name: str = "experiment"
    model: ModelConfig = field(default_factory=ModelConfig)
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    landscape: LandscapeConfig = field(default_factory=LandscapeConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    start: str | None = None
    milestones: int = 0
    memory: str | None = None
    mesh: str | None = None
    precision: Precision = "float32"
    evaluation_batch: int = 20
    seed: int = 0
    plugins: tuple[Plugin, ...] = field(default_factory=loaded_plugins)

    def __post_init__(self) -> None:
        """Rejects what is wrong for every model and all images."""
        check_values(self)
        if not is_plain_word(self.name):
            raise UserError(
                f"name '{self.name}' must be a plain word: the run's directory is called after it"
            )
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed must be from 0 to {2**32 - 1}, not {self.seed}")
        check_at_least_one("evaluation_batch", self.evaluation_batch)
        if not 0 <= self.milestones <= MAX_MILESTONES:
            raise UserError(f"milestones must be from 0 to {MAX_MILESTONES}, not {self.milestones}")
        if self.memory is not None:
            check_amount(self.memory)
        if self.mesh is not None:
            parse_mesh(self.mesh)
        for name in (
            "weight_bits",
            "edge_weight_bits",
            "activation_bits",
            "edge_activation_bits",
            "softmax_bits",
        ):
            bits = getattr(self.quant, name)
            if bits is not None:
                check_bits(f"quant.{name}", bits)
        for link in self.calibration.links:
            if self.quant.bias_correction and link.corrects:
                raise UserError(
                    f"calibration.chain's '{link.name}' needs quant.bias_correction off: both correct weights"
                )
            if self.quant.scheme != "matmul" and FLOAT_STREAM in link.needs:
                raise UserError(
                    f"calibration.chain's '{link.name}' needs quant.scheme matmul: it reads the residual "
                    "stream in float"
                )
        for rule in self.quant.rules:
            if rule.bits:
                check_bits(f"quant.rules, pattern '{rule.pattern}': bits", rule.bits)
