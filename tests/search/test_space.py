import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.quant.observers import OBSERVERS
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.search.space import Parametrization, SearchSpace, make_space
from tests.numbers import numbers

SCALES = {
    "w": numbers(jnp.array([[0.1, 0.2, 0.4]]), jnp.array([[1.0, 2.0, 3.0]]), 4),
    "a": numbers(jnp.array([[[0.5]]]), 7, 8),
    "other": numbers(jnp.ones((1, 1)), 0, 8),
}
SITES = ["image", "blocks/a", "blocks/w/weight", "blocks/v/weight", "stage/w/weight", "head/weight"]


@pytest.mark.parametrize("parametrization", ["raw", "log", "log_per_tensor", "log_per_group"])
@pytest.mark.parametrize("tied", [(), ("w",)])
@pytest.mark.parametrize("affine", [(), ("w", "a")])
def test_the_start_decodes_to_itself(
    parametrization: Parametrization, tied: tuple[str, ...], affine: tuple[str, ...]
) -> None:
    space = SearchSpace(("w", "a"), parametrization, 2, tied, affine)
    solution = space.encode(SCALES)
    for site, channels in (("w", 3), ("a", 1)):
        sizes = [leaf.size for key, leaf in solution.items() if key.split("#")[0] == site]
        assert sum(sizes) == space.num_coordinates(site, channels)
    back = space.decode(space.encode(SCALES), SCALES, 0.01)
    assert set(back) == set(SCALES)
    for name, site_qparams in SCALES.items():
        np.testing.assert_allclose(back[name].scale, site_qparams.scale, rtol=1e-6)
        np.testing.assert_array_equal(back[name].zero_point, site_qparams.zero_point)


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


def test_groups_of_channels_share_a_ratio() -> None:
    """Five channels in groups of two: the last is alone."""
    start = {"w": numbers(jnp.arange(1.0, 6.0)[None], 0, 4)}
    space = SearchSpace(("w",), "log_per_group", group_size=2)
    assert space.encode(start)["w"].shape == (1, 3)
    got = space.decode({"w": jnp.array([[1.0, 0.0, -2.0]])}, start, 0.5)["w"].scale
    np.testing.assert_allclose(got / start["w"].scale, np.exp([[0.5, 0.5, 0, 0, -1]]), rtol=1e-6)


@pytest.mark.parametrize("parametrization", ["raw", "log", "log_per_tensor", "log_per_group"])
def test_power_of_two_factors_follow(parametrization: Parametrization) -> None:
    factors = jnp.array([[[1.0, 4.0, 0.5, 1.0]]])
    start = {"x": numbers(0.1 * factors, 3, 8)}
    space = SearchSpace(("x",), parametrization, group_size=2, tied=("x",))
    solution = space.encode(start)
    assert solution["x"].size == 1
    got = space.decode({"x": solution["x"] + 0.3}, start, 1.0)["x"]
    np.testing.assert_allclose(got.scale / got.scale[..., :1], factors, rtol=1e-6)
    assert float(got.scale[0, 0, 0]) != pytest.approx(0.1)


def test_zero_points_move_as_integers_within_their_range() -> None:
    start = {"w": numbers(jnp.full((1, 4), 0.2), jnp.array([[1.0, 7.0, 14.0, 8.0]]), 4)}
    space = SearchSpace(("w",), "log", affine=("w",))
    solution = space.encode(start) | {"w#zero_point": jnp.array([[-2.0, 1.0, 2.0, 0.3]])}
    got = space.decode(solution, start, 0.1)["w"]
    assert got.zero_point.tolist() == [[0, 8, 15, 8]]  # shifts of -3, 1.5 (8.5: a tie, to even), 3 and 0.45
    np.testing.assert_array_equal(got.scale, start["w"].scale)


def test_specs_say_what_is_tied_and_what_zero_points_can_move() -> None:
    specs = (
        ("blocks/a", QuantSpec(per_channel=True, observer=OBSERVERS["pow2"])),
        ("blocks/w/weight", QuantSpec(per_channel=True, observer=OBSERVERS["pow2"])),
        ("blocks/v/weight", QuantSpec(per_channel=True, signed=True)),
        ("stage/w/weight", QuantSpec(signed=True)),
    )
    space = make_space(["*"], SITES, "log", "blocks", specs=specs, zero_points=True)
    assert space.tied == ("a",)
    assert space.affine == ("a", "w/weight")
    assert make_space(["*"], SITES, "log", "blocks", specs=specs).affine == ()
    with pytest.raises(UserError, match="zero_points has nothing to move in 'stage'"):
        make_space(["*"], SITES, "log", "stage", specs=specs, zero_points=True)


def test_the_sites_of_one_segment_are_found_by_pattern() -> None:
    space = make_space(["*/weight", "blocks/a"], SITES, "raw", "blocks")
    assert space.sites == ("a", "w/weight", "v/weight")
    assert make_space(["*/weight"], SITES, "raw", "stage").sites == ("w/weight",)


def test_patterns_that_search_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="head/weight are all outside the blocks of 'blocks'"):
        make_space(["head/weight"], SITES, "raw", "blocks")
    with pytest.raises(UserError, match=r"'blocks/v/weigth' matches no .*mean 'blocks/v/weight'"):
        make_space(["blocks/a", "blocks/v/weigth"], SITES, "raw", "blocks")
