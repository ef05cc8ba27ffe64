from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.gradient.theta import decode, encode
from evolq_jax.quant.observers.pow2 import POW2
from tests.gradient.setting import BASELINE, problem_of
from tests.search.setting import Setting


@pytest.mark.parametrize("parametrization", ["raw", "log", "log_per_tensor"])
def test_what_is_encoded_decodes_to_the_start(setting: Setting, parametrization: Any) -> None:
    loss = problem_of(setting, replace(BASELINE, parametrization=parametrization)).loss
    theta = encode(loss, setting.qparams)
    found = decode(loss, theta, setting.qparams)
    for name, site_qparams in found.items():
        np.testing.assert_allclose(site_qparams.scale, setting.qparams[name].scale, rtol=1e-6)
    if parametrization == "log_per_tensor":
        assert theta["blocks/attn/qkv/weight"].shape == (3, 1, 1)


def test_power_of_two_factors_stay_what_they_are(setting: Setting) -> None:
    """As in the search: the channels of such a site follow one coordinate."""
    site = "blocks/norm1"
    specs = tuple(
        (name, replace(spec, per_channel=True, observer=POW2) if name == site else spec)
        for name, spec in setting.specs
    )
    factors = 2.0 ** (jnp.arange(32) % 4)
    before = setting.qparams[site]
    start = setting.qparams | {site: before._replace(scale=before.scale * factors)}
    loss = replace(problem_of(setting).loss, specs=specs)
    theta = {name: leaf + 0.3 for name, leaf in encode(loss, start).items()}
    found = decode(loss, theta, start)[site].scale
    np.testing.assert_allclose(
        found / found[..., :1], start[site].scale / start[site].scale[..., :1], rtol=1e-6
    )
    assert theta[site].shape == (3, 1, 1, 1)
    assert not np.allclose(found, start[site].scale)
