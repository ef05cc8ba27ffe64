"""A small ViT (8x8 images, 4 blocks of width 64) learns scikit-learn's handwritten digits from scratch.

    evolq train configs/train_digits.py

This writes runs/vit_digits.safetensors. It takes about a minute and a half on two CPU cores. Top-1 is about
98 % on the 697 test images. The settings were chosen on parts of the training images. The same command with
`--out models/weights/vit_digits.safetensors` made the weights that evolq_jax ships.
"""

from evolq_jax.config.experiment import TrainConfig, TrainExperiment

config = TrainExperiment(
    model="vit_digits",
    train_data="digits:train",
    test_data="digits:test",
    out="runs/vit_digits.safetensors",
    train=TrainConfig(epochs=250, batch_size=32, learning_rate=7e-4, weight_decay=1.0, shift=1),
)
