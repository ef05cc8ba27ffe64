"""The order of links: what one would undo of another is refused with what to do."""

import pytest

from evolq_jax.calibration.chain import LINKS, check_order, find_links
from evolq_jax.errors import UserError


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (("ranges", "gptq", "ranges"), "'ranges' after 'ranges': it finds all ranges anew.*leave one out"),
        (("ranges", "fold", "smooth"), "put 'smooth' before 'fold'"),
        (("ranges", "own_output", "ridge"), "'ridge' after 'own_output'.*put 'ridge' before 'own_output'"),
        (("ranges", "gptq", "ridge"), "put 'ridge' before 'gptq'"),
        (("ranges", "brecq", "ridge"), "put 'ridge' before 'brecq'"),
        (("ranges", "brecq", "gptq"), "it rounds weights that have been rounded"),
        (("ranges", "gptq", "bias", "gptq"), "'gptq' after 'gptq'.*leave one out"),
        (("ranges", "bias", "smooth"), "put 'smooth' before 'bias'"),
    ],
)
def test_a_link_that_would_undo_another_is_refused(chain: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_order(find_links(chain))


def test_every_link_has_a_place_in_one_long_chain() -> None:
    chain = ("ranges", "smooth", "fold", "clip", "ridge", "own_output", "gptq", "bias", "block_linear")
    check_order(find_links(chain))
    assert {*chain, "brecq"} == set(LINKS)
