"""The linear correction of every block: its fit, that it is run everywhere, and what it costs."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.calibration.chain import check_links, find_links
from evolq_jax.calibration.links.block_linear import DAMPINGS, added_parameters, fit, half_moments
from evolq_jax.config.experiment import CalibrationConfig, Experiment, QuantConfig
from evolq_jax.errors import UserError
from evolq_jax.network.parts import CORRECTION, SiteRoles
from evolq_jax.network.reading import Reading, float_reading, quantized_reading
from evolq_jax.network.run import forward, run_blocks
from evolq_jax.network.sites import list_sites
from evolq_jax.objective.logits import kl
from evolq_jax.quant.qparams import blank_qparams
from evolq_jax.quant.scheme import resolve
from evolq_jax.quant.sites import fake_quant_weights, quant_sites
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.trees import flatten
from evolq_jax.verbs.evaluate import run_evaluate
from evolq_jax.verbs.search.run import run_search
from tests.families import make_small
from tests.small_run import small_config
from tests.tiny import Tiny
from tests.two_segments import WITH_DOWN, make_inputs, params_with_down

RNG = np.random.default_rng(0)


def arrays(noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, exact and rough outputs [4, 3, 5, 6]; what is lost is a linear map of the input, and noise."""
    inputs = RNG.standard_normal((4, 3, 5, 6)) * np.exp(RNG.standard_normal(6)) + 0.5
    exact = inputs + RNG.standard_normal((4, 3, 5, 6))
    lost = inputs @ (0.3 * np.linspace(-1, 1, 36).reshape(6, 6)) + 0.2
    return inputs, exact, exact - lost - noise * RNG.standard_normal((4, 3, 5, 6))


def test_the_fit_is_ridge_regression_with_the_damping_that_serves_other_images() -> None:
    inputs, exact, rough = arrays(0.5)
    got = fit(*(half_moments(p, *map(jnp.float32, (inputs, exact, rough))) for p in (0, 1)))
    even = (np.arange(12) % 2 == 0).reshape(4, 3)
    token = 1 / (exact**2).mean(-1)

    def solve(chosen: np.ndarray, damping: float) -> tuple[np.ndarray, np.ndarray]:
        x, t, w = inputs[chosen].reshape(-1, 6), (exact - rough)[chosen].reshape(-1, 6), token[chosen].ravel()
        mean_x, mean_t = (w @ x) / w.sum(), (w @ t) / w.sum()
        x0, t0 = x - mean_x, t - mean_t
        gram = (x0 * w[:, None]).T @ x0
        weight = np.linalg.solve(gram + damping * np.diag(np.diag(gram)), (x0 * w[:, None]).T @ t0)
        return weight, mean_t - mean_x @ weight

    def error(chosen: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> float:
        rest = (inputs @ weight + bias - (exact - rough))[chosen]
        return float((token[chosen][..., None] * rest**2).sum())

    errors = [error(~even, *solve(even, d)) + error(even, *solve(~even, d)) for d in DAMPINGS]
    want = solve(np.ones_like(even), DAMPINGS[int(np.argmin(errors))])
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def test_where_nothing_linear_is_lost_there_is_no_correction() -> None:
    inputs, exact, _ = arrays(0.0)
    rough = exact - np.sign(RNG.standard_normal(exact.shape))  # nothing of the input in it
    weight, bias = fit(*(half_moments(p, *map(jnp.float32, (inputs, exact, rough))) for p in (0, 1)))
    assert not weight.any()
    assert not bias.any()


def test_blocks_with_a_correction_are_nearer_to_the_float_network_and_run_it_everywhere(tiny: Tiny) -> None:
    specs, bits = resolve(QuantConfig("matmul", weight_bits=2), tiny.sites)
    rng = np.random.default_rng(1)
    images, others = (jnp.asarray(0.6 * rng.standard_normal((96, 16, 16, 3)), jnp.float32) for _ in range(2))
    start = blank_qparams(specs, bits, tiny.sites)
    run = partial(
        calibrate, tiny.parts, specs, tiny.params, [images], sites=tiny.sites, qparams=start, chunk=16
    )
    plain, (params, _, qparams) = run().params, run(chain=("ranges", "block_linear"))
    added = params["blocks"][CORRECTION]
    assert {name: leaf.shape for name, leaf in added.items()} == {"weight": (3, 32, 32), "bias": (3, 32)}
    assert {k: v for k, v in flatten(params).items() if CORRECTION not in k}.keys() == flatten(plain).keys()
    assert sum(leaf.size for leaf in added.values()) == added_parameters(tiny.parts, tiny.params, (16, 16, 3))

    quantized = fake_quant_weights(specs, params, qparams)
    forward_fn = jax.jit(lambda p, x: forward(tiny.parts, quantized_reading(specs, p, qparams), x))
    teacher = jax.jit(lambda x: forward(tiny.parts, float_reading(tiny.params), x))(others)
    corrected, before = (
        float(kl(forward_fn(p, others), teacher))
        for p in (quantized, fake_quant_weights(specs, plain, qparams))
    )
    assert corrected < 0.9 * before  # on images that it was not fitted on

    segment = tiny.parts.segments[0]
    site = quant_sites(specs)
    x = segment.enter(quantized, site("", qparams), images[:4])
    whole = run_blocks(segment, Reading(site, quantized, qparams), x, start=0, stop=3)
    logits = tiny.parts.head(quantized, site("", qparams), whole)
    np.testing.assert_allclose(logits, forward_fn(quantized, images[:4]), rtol=1e-3, atol=1e-3)


def test_a_block_that_changes_the_shape_has_no_correction() -> None:
    parts, start, images = (
        replace(WITH_DOWN, roles=SiteRoles(residual=("*",))),
        params_with_down(),
        make_inputs(24),
    )
    sites = list_sites(parts, start, images.shape[1:])
    specs = tuple((site, QuantSpec(signed=True)) for site, info in sites.items() if info.is_weight)
    chain = ("ranges", "block_linear")
    given, blank = (parts, specs, start, [images]), blank_qparams(specs, 2, sites)
    params = flatten(calibrate(*given, sites=sites, qparams=blank, chain=chain, chunk=12).params)
    added = {name: leaf.shape for name, leaf in params.items() if f"{CORRECTION}/weight" in name}
    assert added == {f"a/{CORRECTION}/weight": (2, 6, 6), f"b/{CORRECTION}/weight": (3, 4, 4)}
    assert added_parameters(parts, start, images.shape[1:]) == 2 * 7 * 6 + 3 * 5 * 4


def test_it_is_last_in_the_chain_and_adds_to_a_stream_in_float(tiny: Tiny) -> None:
    with pytest.raises(UserError, match="'gptq' after 'block_linear'"):
        check_links(find_links(("ranges", "block_linear", "gptq")), tiny.parts, ())
    with pytest.raises(UserError, match="quantizes what its blocks give"):
        check_links(find_links(("ranges", "block_linear")), make_small("small_resnet").parts, ())
    chain = CalibrationConfig(chain=("ranges", "block_linear"))
    with pytest.raises(UserError, match=r"needs quant\.scheme matmul: it reads"):
        Experiment(quant=QuantConfig("fully_quantized"), calibration=chain)
    Experiment(calibration=chain)


def test_a_run_keeps_its_corrections_and_says_what_they_cost(tmp_path: Path, weights: Path) -> None:
    config = small_config(weights)
    config = replace(config, calibration=replace(config.calibration, chain=("ranges", "block_linear")))
    result = run_search(config, tmp_path / "run")
    assert result.setting.added_parameters > 0
    again = run_evaluate(tmp_path / "run")
    assert again.init == result.init
    assert again.final == result.final
