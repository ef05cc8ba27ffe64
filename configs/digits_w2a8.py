"""The embedded default: a small ViT on scikit-learn's digits at 2-bit weights and 8-bit activations.

    evolq search configs/digits_w2a8.py

It shows what a search does by itself: the chain finds plain ranges and leaves the weights as they are. With
`--preset strong` the chain corrects and rounds the weights too. It then reaches more than any search from
plain ranges, and the search after it changes nothing (docs/results.md).

The scheme is `matmul`; patch embedding and head have 8 bits. Why two bits? Three bits cost this network less
than a point of top-1, so there is nothing to win back; two bits cost about ten. 300 training images
calibrate, and 150 of them only decide whether a block's move is kept. The 697 test images only measure. The
search is the default one with three passes. It takes about 12 seconds on two CPU cores.
"""

from evolq_jax.config.experiment import (
    CalibrationConfig,
    DataConfig,
    Experiment,
    ModelConfig,
    QuantConfig,
    SearchConfig,
)

config = Experiment(
    name="digits_w2a8",
    model=ModelConfig("vit_digits"),
    data=DataConfig("digits:train", "digits:test", num_calibration=300),
    quant=QuantConfig("matmul", weight_bits=2, activation_bits=8, activation_observer="minmax"),
    calibration=CalibrationConfig(chain=("ranges",), image_chunk=100),
    search=SearchConfig(passes=3, image_chunk=50),
    evaluation_batch=100,
)
