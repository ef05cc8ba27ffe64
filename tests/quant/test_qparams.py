import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.quant.qparams import blank_qparams, with_bits
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.typing import SiteInfo

SITES = {"blocks/w": SiteInfo((4, 6), 3, True), "head": SiteInfo((1, 5), None, False)}
BLANK = blank_qparams(tuple((site, QuantSpec()) for site in SITES), {"blocks/w": 4, "head": 8}, SITES)


def test_blank_numbers_hold_nothing_but_bits() -> None:
    assert {site: leaf.bits.shape for site, leaf in BLANK.items()} == {"blocks/w": (3, 1, 1), "head": (1, 1)}
    assert (BLANK["blocks/w"].bits == 4).all()
    assert (BLANK["blocks/w"].scale == 1).all()
    assert (BLANK["blocks/w"].zero_point == 0).all()
    assert BLANK["head"].bits.item() == 8


def test_blocks_may_differ_and_other_sites_stay() -> None:
    found = with_bits(BLANK, {"blocks/w": np.array([2, 5, 8])})
    assert found["blocks/w"].bits.ravel().tolist() == [2, 5, 8]
    assert found["head"] is BLANK["head"]


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ({"blocks/v": 4}, "no quantized site is called 'blocks/v'; did you mean 'blocks/w'"),
        ({"head": 9}, "the bits of 'head' must be from 2 to 8, not 9"),
        ({"blocks/w": jnp.array([2, 1, 8])}, "the bits of 'blocks/w' must be from 2 to 8, not 1"),
        ({"head": 2.5}, "not 2.5"),
        ({"blocks/w": np.array([2, 3])}, r"'blocks/w' has 3 blocks, not 2"),
    ],
)
def test_bits_that_make_no_sense_are_refused(bits: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_bits(BLANK, bits)
