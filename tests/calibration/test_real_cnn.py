"""Calibration of a real CNN: its quantized forms keep what they should of its predictions."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.models.checkpoint import load_checkpoint
from evolq_jax.network.reading import float_reading, quantized_reading
from evolq_jax.network.run import forward, normalize
from evolq_jax.network.sites import list_sites
from evolq_jax.quant.qparams import blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.quant.sites import fake_quant_weights

MODEL = "resnet20_cifar10"


@pytest.mark.parametrize(
    ("scheme", "weight_bits", "at_least"),
    [("matmul", 8, 0.96), ("matmul", 4, 0.85), ("fully_quantized", 8, 0.96)],
)
def test_quantized_resnet_agrees_with_the_float_one(
    scheme: str, weight_bits: int, at_least: float, shared: Path
) -> None:
    model = load_checkpoint(MODEL, shared / f"data/weights/{MODEL}.safetensors")
    prepare = jax.jit(partial(normalize, model.preprocessing))
    calibration, evaluation = (
        prepare(jnp.asarray(np.load(shared / f"data/cifar10/{name}.npz")["image"][:count]))
        for name, count in (("calib", 100), ("test", 500))
    )
    sites = list_sites(model.parts, model.params, (32, 32, 3))
    specs, bits = resolve(QuantConfig(scheme, weight_bits=weight_bits), sites)  # type: ignore[arg-type]
    given, start = (model.parts, specs, model.params, [calibration]), blank_qparams(specs, bits, sites)
    params, _, qparams = calibrate(*given, sites=sites, qparams=start, chunk=50)
    want = forward(model.parts, float_reading(params), evaluation).argmax(-1)
    quantized = fake_quant_weights(specs, params, qparams)
    got = forward(model.parts, quantized_reading(specs, quantized, qparams), evaluation).argmax(-1)
    agreement = float((got == want).mean())
    assert at_least <= agreement < 1
