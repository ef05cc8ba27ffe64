"""The released code's correction of weights, which it calls bias correction."""

from evolq_jax.typing import Array


def match_channel_statistics(weight: Array, quantized: Array, axes: tuple[int, ...]) -> Array:
    """Channels shifted and stretched, reducing over `axes`.

    Afterwards each channel has the float channel's mean and (unbiased) standard deviation. The result
    is off the integer grid: an integer export folds it into a scale and a bias per channel.
    """
    mean, mean_q = weight.mean(axes, keepdims=True), quantized.mean(axes, keepdims=True)
    std, std_q = (w.std(axes, ddof=1, keepdims=True) for w in (weight, quantized))
    return (quantized - mean_q) * (std / (std_q + 1e-8)) + mean
