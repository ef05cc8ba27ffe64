r"""ResNet-20 on CIFAR-10 at 4-bit weights and activations: block reconstruction, then the search.

The quantization points are those of BRECQ (Li et al., arXiv 2102.05426): weights per output channel,
activations per tensor after each ReLU, first and last layers at 8 bits, BatchNorm folded. Ranges have the
least squared error. Then `brecq` learns rounding and activation steps, block by block. At last the search
(arXiv 2308.10814) moves scales under the decided integers. The weights are those of
akamaster/pytorch_resnet_cifar10. Images are `.npz` files with `image` uint8 [B, 32, 32, 3] and, for the
evaluation, `label`.

    evolq search configs/cifar_resnet20_w4a4.py --model.weights resnet20_cifar10.safetensors \
        --data.calibration CALIBRATION.npz --data.evaluation TEST.npz

`--quant.weight-bits 2 --quant.activation-bits 8` gives W2A8. `--calibration.chain ranges` leaves `brecq` out.
"""

from evolq_jax.config.experiment import (
    BrecqConfig,
    CalibrationConfig,
    DataConfig,
    Experiment,
    ModelConfig,
    QuantConfig,
    SearchConfig,
)

config = Experiment(
    name="cifar_resnet20_w4a4",
    model=ModelConfig("resnet20_cifar10", weights=None),
    data=DataConfig("cifar10/calib.npz", "cifar10/test.npz", num_calibration=1000),
    quant=QuantConfig(
        "matmul", weight_bits=4, activation_bits=4, activation_observer="omse", quantize_image=False
    ),
    calibration=CalibrationConfig(
        chain=("ranges", "brecq"), brecq=BrecqConfig(steps=1000, fisher=False), image_chunk=50
    ),
    search=SearchConfig(image_chunk=50),
    evaluation_batch=100,
)
