import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.search.space import Parametrization, SearchSpace, make_space
from evolq_jax.typing import QParams

SCALES = {
    "w": QParams(jnp.array([[0.1, 0.2, 0.4]]), jnp.array([[1.0, 2.0, 3.0]])),
    "a": QParams(jnp.array([[[0.5]]]), jnp.array([[[7.0]]])),
    "other": QParams(jnp.ones((1, 1)), jnp.zeros((1, 1))),
}
SITES = ["image", "blocks/a", "blocks/w/weight", "blocks/v/weight", "stage/w/weight", "head/weight"]


@pytest.mark.parametrize("parametrization", ["raw", "log", "log_per_tensor"])
def test_the_start_decodes_to_itself(parametrization: Parametrization) -> None:
    space = SearchSpace(("w", "a"), parametrization)
    back = space.decode(space.encode(SCALES), SCALES, 0.01)
    assert set(back) == set(SCALES)
    for name, qparams in SCALES.items():
        np.testing.assert_allclose(back[name].scale, qparams.scale, rtol=1e-6)
        np.testing.assert_array_equal(back[name].zero_point, qparams.zero_point)


def test_a_solution_is_scales_ratios_or_one_ratio_for_each_tensor() -> None:
    raw = SearchSpace(("w",), "raw").decode({"w": jnp.array([[1.0, 2.0, 3.0]])}, SCALES, 0.5)
    assert raw["w"].scale.tolist() == [[1, 2, 3]]
    log = SearchSpace(("w",), "log").decode({"w": jnp.array([[0.0, 1.0, -2.0]])}, SCALES, 0.5)
    np.testing.assert_allclose(log["w"].scale, [[0.1, 0.2 * np.exp(0.5), 0.4 * np.exp(-1)]], rtol=1e-6)
    space = SearchSpace(("w", "a"), "log_per_tensor")
    assert jax.tree.map(jnp.shape, space.encode(SCALES)) == {"w": (1, 1), "a": (1, 1, 1)}
    one = space.decode({"w": jnp.array([[3.0]]), "a": jnp.array([[[0.0]]])}, SCALES, 0.1)
    np.testing.assert_allclose(one["w"].scale, SCALES["w"].scale * np.exp(0.3), rtol=1e-6)
    assert one["a"].scale == SCALES["a"].scale
    assert one["other"] is SCALES["other"]


def test_the_sites_of_one_segment_are_found_by_pattern() -> None:
    space = make_space(["*/weight", "blocks/a"], SITES, "raw", "blocks")
    assert space.sites == ("a", "w/weight", "v/weight")
    assert make_space(["*/weight"], SITES, "raw", "stage").sites == ("w/weight",)


def test_patterns_that_search_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="head/weight are all outside the blocks of 'blocks'"):
        make_space(["head/weight"], SITES, "raw", "blocks")
    with pytest.raises(UserError, match=r"'blocks/v/weigth' matches no .*mean 'blocks/v/weight'"):
        make_space(["blocks/a", "blocks/v/weigth"], SITES, "raw", "blocks")
