"""Settings of quantizers that tests of single quantizers and sites begin from."""

from typing import Any

# Extremes, uniform steps, and all sites: what a reference computes by itself.
PLAIN: dict[str, Any] = {
    "activation_observer": "minmax",
    "residual_observer": "ptf",
    "softmax_quantizer": "uniform",
    "gelu_quantizer": "uniform",
    "quantize_image": True,
}
