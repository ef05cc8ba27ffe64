r"""ViT-Tiny/16 (AugReg, 5.7 M parameters) at 3-bit weights and 8-bit activations.

    evolq search configs/vit_tiny_w3a8.py --model.weights WEIGHTS.safetensors --data.class-index SYNSETS.txt \
        --data.calibration CALIBRATION_FOLDER --data.evaluation VALIDATION_FOLDER

The scheme is `matmul`: only the inputs and weights of matrix products are quantized. Patch embedding and head
have 8 bits. Activations have a power-of-two factor for each channel, because a few channels carry massive
values. `--quant.scheme fully_quantized` gives the paper's scheme, `--preset faithful` the released settings.

Reference: Evol-Q, arXiv 2308.10814, which does not report this model. docs/results.md has the numbers and
times to expect with 100 calibration images.
"""

from evolq_jax.config.experiment import (
    DataConfig,
    Experiment,
    ModelConfig,
    QuantConfig,
    SearchConfig,
)
from evolq_jax.config.presets import strong

config = strong(
    Experiment(
        name="vit_tiny_w3a8",
        model=ModelConfig("vit_tiny_patch16_224"),
        data=DataConfig("imagenet/calibration", "imagenet/validation", num_calibration=100),
        quant=QuantConfig("matmul", weight_bits=3, activation_bits=8),
        search=SearchConfig(passes=1),
    )
)
