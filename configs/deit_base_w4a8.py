r"""DeiT-Base/16: the paper's run at 4-bit weights and 8-bit activations.

The setting is that of Evol-Q (arXiv 2308.10814) and its released code. Every site is quantized. Calibration
is that of FQ-ViT, with 1,000 images. The search moves the weight scales of qkv and proj: 10 passes x 12
blocks x 3 generations of one child.
For other bits use `--quant.weight-bits 3` or `8`; with 8 add `--search.epsilon 1e-4`, as released.

    evolq search configs/deit_base_w4a8.py --model.weights hf-hub:timm/deit_base_patch16_224.fb_in1k \
        --data.calibration CALIBRATION_FOLDER --data.evaluation VALIDATION_FOLDER --data.class-index INDEX.txt

The paper's results table has absolute figures for this model, on full ImageNet.
We have not run this on the full data (no ImageNet at hand). `--dry-run` estimates the time on your device.
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
        name="deit_base_w4a8",
        model=ModelConfig("deit_base_patch16_224", weights=None),
        data=DataConfig("imagenet/calibration", "imagenet/validation", num_calibration=1000),
        quant=QuantConfig("fully_quantized", weight_bits=4, activation_bits=8),
        search=SearchConfig(passes=10),
    )
)
