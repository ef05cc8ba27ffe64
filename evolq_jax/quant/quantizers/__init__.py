"""Quantizers, one file each."""

from evolq_jax.quant.quantizers.base import Quantizer
from evolq_jax.quant.quantizers.log import LOG, LOG_SQRT2
from evolq_jax.quant.quantizers.log2 import LOG2
from evolq_jax.quant.quantizers.shifted_log import SHIFTED_LOG, SHIFTED_LOG2, SHIFTED_LOG_SQRT2
from evolq_jax.quant.quantizers.twin import TWIN
from evolq_jax.quant.quantizers.uniform import UNIFORM

QUANTIZERS: dict[str, Quantizer] = {
    quantizer.name: quantizer
    for quantizer in (UNIFORM, LOG2, LOG_SQRT2, LOG, TWIN, SHIFTED_LOG, SHIFTED_LOG2, SHIFTED_LOG_SQRT2)
}
