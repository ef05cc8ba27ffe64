"""The gradient chunk by chunk is that of the whole fitness in one program."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.calibration.calibrate import calibrate
from evolq_jax.gradient.chunks import value_and_gradient
from evolq_jax.gradient.loss import Student, straight_through_loss, straight_through_outputs
from evolq_jax.gradient.problem import Data, ScaleLoss
from evolq_jax.gradient.theta import Theta, encode
from evolq_jax.models.layers import conv
from evolq_jax.network.parts import ModelParts, Segment, SiteRoles
from evolq_jax.network.reading import float_reading
from evolq_jax.network.run import forward
from evolq_jax.network.sites import list_sites
from evolq_jax.objective.objective import Teacher, make_objective
from evolq_jax.quant.qparams import blank_qparams
from evolq_jax.quant.scheme import QuantConfig, resolve
from evolq_jax.typing import Array, Params, Site
from tests.search.setting import BATCH, Setting

CHUNK = 4  # three chunks for two contrastive batches of six
OBJECTIVE = make_objective("info_nce + 0.5*features", batch_size=BATCH)


def _enter(params: Params, site: Site, x: Array) -> Array:
    del params, site
    return x


def _block(params: Params, site: Site, x: Array) -> Array:
    return x + jax.nn.relu(conv(params["conv"], site("act", x)))


def _head(params: Params, site: Site, x: Array) -> Array:
    return site("pool", x.mean((1, 2))) @ params["head"]


CNN = ModelParts(
    (Segment("blocks", 2, _enter, _block),), _head, features="pool", roles=SiteRoles(operands=("*/act",))
)


@cache
def cnn() -> tuple[ScaleLoss, Data]:
    """Two blocks of one convolution; the weights in three bits."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return jnp.asarray(rng.standard_normal(shape) / 3, jnp.float32)

    kernels = {"weight": normal(2, 3, 3, 3, 3), "bias": normal(2, 3)}
    params: Params = {"blocks": {"conv": kernels}, "head": normal(3, 5)}
    images = 3 * normal(12, 4, 4, 3)
    sites = list_sites(CNN, params, (4, 4, 3))
    specs, bits = resolve(QuantConfig("matmul", weight_bits=3, weight_observer="minmax"), sites)
    start = blank_qparams(specs, bits, sites)
    qparams = calibrate(CNN, specs, params, [images], sites=sites, qparams=start, chunk=12).qparams
    names = ("blocks/conv/weight", "blocks/act")
    loss = ScaleLoss(CNN, specs, names, OBJECTIVE, CHUNK)
    teacher = Teacher(forward(CNN, float_reading(params), images), normal(12, 3))
    return loss, Data(params, qparams, images, teacher)


def vit(setting: Setting) -> tuple[ScaleLoss, Data]:
    names = ("blocks/attn/qkv/weight", "blocks/norm1")
    loss = ScaleLoss(setting.tiny.parts, setting.specs, names, OBJECTIVE, CHUNK)
    features = jnp.asarray(np.random.default_rng(0).standard_normal((12, 32)), jnp.float32)
    teacher = Teacher(setting.teacher, features)
    return loss, Data(setting.tiny.params, setting.qparams, setting.tokens, teacher)


@pytest.mark.parametrize("network", ["cnn", "vit"])
def test_it_is_the_gradient_of_the_whole(setting: Setting, network: str) -> None:
    loss, data = cnn() if network == "cnn" else vit(setting)
    theta, images = encode(loss, data.start), jnp.asarray(np.random.default_rng(0).permutation(12))

    @jax.jit
    def whole(theta: Theta) -> tuple[Array, Theta]:
        return jax.value_and_grad(lambda theta: straight_through_loss(loss, data, theta, images))(theta)

    value, gradient = value_and_gradient(loss, data, theta, images)
    wanted_value, wanted = whole(theta)
    assert float(value) == pytest.approx(float(wanted_value), rel=1e-5)
    for site, leaf in wanted.items():
        size = float(jnp.abs(leaf).max())
        assert size > 0
        np.testing.assert_allclose(gradient[site], leaf, atol=1e-4 * size)


@pytest.mark.cpu(reason="gradients of convolutions in loops are slow there alone")
@pytest.mark.parametrize("network", ["cnn", "vit"])
def test_only_convolutions_are_unrolled(setting: Setting, network: str) -> None:
    """No loop is left around their gradients."""
    loss, data = cnn() if network == "cnn" else vit(setting)

    def logits(student: Student, x: Array) -> Array | None:
        return straight_through_outputs(loss, student, x).logits

    text = jax.jit(logits).lower(Student(data.params, data.start), data.tokens[:CHUNK]).as_text()
    assert ("stablehlo.while" in text) == (network == "vit")
