r"""ResNet-50 at 4-bit weights and 8-bit activations, quantized as in BRECQ, searched as in Evol-Q.

Quantization points of BRECQ (Li et al., arXiv 2102.05426): weights per output channel, activations per tensor
after each ReLU, first and last layers at 8 bits, BatchNorm folded; ranges by least squared error. Its block
reconstruction is no part of this. The search is that of Evol-Q (arXiv 2308.10814) over the scales of all
convolutions of a block: 1,000 calibration images, 10 passes x 12 blocks x 3 generations of one child. A
stage's first block, which changes width or resolution, keeps its calibrated scales.

    evolq search configs/resnet50_w4a8.py --model.weights hf-hub:timm/resnet50.tv_in1k \
        --data.calibration CALIBRATION_FOLDER --data.evaluation VALIDATION_FOLDER --data.class-index INDEX.txt

The paper's absolute figures are for full ImageNet and stand in its tables; it finds the loss of CNNs smooth,
so expect less of the search than with transformers.
Time: not run here on the full data (no ImageNet at hand). `--dry-run` estimates it for your device.
"""

from dataclasses import replace

from evolq_jax.config import DataConfig, Experiment, ModelConfig, QuantConfig, SearchConfig, faithful

released = faithful(Experiment(quant=QuantConfig("matmul", weight_bits=4), search=SearchConfig(passes=10)))
config = Experiment(
    name="resnet50_w4a8",
    model=ModelConfig("resnet50", weights=None),
    data=DataConfig("imagenet/calibration", "imagenet/validation", num_calibration=1000),
    quant=QuantConfig("matmul", weight_bits=4, activation_bits=8, quantize_image=False),
    search=replace(released.search, sites=("layer?/conv?/weight",)),
)
