r"""ResNet-50 at 4-bit weights and 8-bit activations: BRECQ, then Evol-Q on top of it.

The quantization points are those of BRECQ (Li et al., arXiv 2102.05426): weights per output channel,
activations per tensor after each ReLU, first and last layers at 8 bits, BatchNorm folded. Calibration finds
ranges by least squared error. BRECQ's block reconstruction follows, with its 20,000 steps a block and Fisher
weights. It decides the integers. Then the search of Evol-Q (arXiv 2308.10814) moves the scales of all
convolutions of a block under these integers: 1,000 calibration images, 10 passes x 16 blocks x 3 generations
of one child.

    evolq search configs/resnet50_w4a8.py --model.weights hf-hub:timm/resnet50.tv_in1k \
        --data.calibration CALIBRATION_FOLDER --data.evaluation VALIDATION_FOLDER --data.class-index INDEX.txt

The paper's tables have absolute figures, on full ImageNet. The paper finds the loss of CNNs smooth, so expect
less of the search than with transformers.

We have not run this on the full data (no ImageNet at hand). `--dry-run` estimates the time on your device.
`--calibration.brecq.steps 1000` takes a twentieth of the steps; `--calibration.chain ranges` leaves
reconstruction out.
"""

from dataclasses import replace

from evolq_jax.config.experiment import (
    BrecqConfig,
    CalibrationConfig,
    DataConfig,
    Experiment,
    ModelConfig,
    QuantConfig,
    SearchConfig,
)
from evolq_jax.config.presets import faithful

released = faithful(Experiment(quant=QuantConfig("matmul", weight_bits=4), search=SearchConfig(passes=10)))
config = Experiment(
    name="resnet50_w4a8",
    model=ModelConfig("resnet50", weights=None),
    data=DataConfig("imagenet/calibration", "imagenet/validation", num_calibration=1000),
    quant=QuantConfig(
        "matmul", weight_bits=4, activation_bits=8, activation_observer="omse", quantize_image=False
    ),
    calibration=CalibrationConfig(
        chain=("ranges", "brecq"), brecq=BrecqConfig(steps=20_000, batch_size=32, drop=0.0)
    ),
    search=replace(released.search, sites=("layer*/*/weight",)),
)
