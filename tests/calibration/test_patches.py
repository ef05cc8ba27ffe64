"""Convolutions as products over patches."""

import numpy as np
import pytest

from evolq_jax.calibration import patches
from evolq_jax.models.layers import conv
from tests.calibration.convolutions import KERNELS, images, kernel


@pytest.mark.parametrize(("size", "groups"), KERNELS)
def test_a_convolution_is_a_product_over_patches(size: int, groups: int) -> None:
    (weight, bias), x = kernel(size, groups), images()
    found = patches.tokens(x, weight)
    assert found.ndim == (2 if groups == 1 else 3)
    want = conv({"weight": weight, "bias": bias}, x).reshape(-1, 16)
    np.testing.assert_allclose(patches.product(found, weight) + bias, want, atol=2e-5)
    matrix = patches.as_matrix(weight, groups)
    np.testing.assert_array_equal(patches.as_weight(matrix, weight.shape), weight)
