r"""LeViT-256: the paper's run at 4-bit weights and 8-bit activations.

Setting of Evol-Q (arXiv 2308.10814) and its released code: every site quantized, FQ-ViT calibration, 1,000
calibration images, 10 passes x 14 attention modules (two subsample) x 3 generations of one child, scales of
the weights qkv (q and kv in those that subsample) and proj. LeViT has BatchNorm, which is folded, in place of
LayerNorm.
Other widths by `--quant.weight-bits 3` or `8` (with 8: `--search.epsilon 1e-4`, as released).

    evolq search configs/levit_256_w4a8.py \
        --model.weights hf-hub:timm/levit_256.fb_dist_in1k \
        --data.calibration CALIBRATION_FOLDER --data.evaluation VALIDATION_FOLDER --data.class-index INDEX.txt

The paper's absolute figures are for full ImageNet and stand in its tables.
Time: not run here on the full data (no ImageNet at hand). `--dry-run` estimates it for your device.
"""

from evolq_jax.config.experiment import (
    DataConfig,
    Experiment,
    ModelConfig,
    QuantConfig,
    SearchConfig,
)
from evolq_jax.config.presets import faithful

config = faithful(
    Experiment(
        name="levit_256_w4a8",
        model=ModelConfig("levit_256", weights=None),
        data=DataConfig("imagenet/calibration", "imagenet/validation", num_calibration=1000),
        quant=QuantConfig("fully_quantized", weight_bits=4, activation_bits=8),
        search=SearchConfig(passes=10),
    )
)
