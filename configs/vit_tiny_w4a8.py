"""ViT-Tiny/16 (AugReg, 5.7 M parameters) at 4-bit weights and 8-bit activations.

    evolq search configs/vit_tiny_w4a8.py --model.weights WEIGHTS.safetensors \
        --data.calibration CALIBRATION_FOLDER --data.evaluation VALIDATION_FOLDER --data.class-index SYNSETS.txt
"""

from evolq_jax.config import DataConfig, Experiment, ModelConfig
from evolq_jax.quant.spec import QuantConfig
from evolq_jax.search.blockwise import SearchConfig

config = Experiment(
    name="vit_tiny_w4a8",
    model=ModelConfig("vit_tiny_patch16_224"),
    data=DataConfig(calibration="calibration", evaluation="validation"),
    quant=QuantConfig("matmul", weight_bits=4, activation_bits=8),
    search=SearchConfig(passes=1),
)
