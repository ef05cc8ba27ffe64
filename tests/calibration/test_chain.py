"""The order of links: what one would undo of another is refused with what to do."""

from pathlib import Path

import pytest

from evolq_jax.calibration.chain import LINKS, check_chain, find_links
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
        check_chain(find_links(chain))


UNDONE = {  # each link, and those that it must not follow
    "ranges": set(LINKS),
    "smooth": {"fold", "clip", "ridge", "own_output", "gptq", "bias", "brecq"},
    "fold": {"clip", "ridge", "own_output", "gptq", "bias", "brecq"},
    "clip": {"gptq", "brecq"},
    "own_output": {"gptq", "brecq"},
    "ridge": {"own_output", "gptq", "brecq"},
    "gptq": {"gptq", "brecq"},
    "brecq": {"gptq", "brecq"},
}


@pytest.mark.parametrize("name", LINKS)
def test_each_link_says_which_it_must_not_follow(name: str) -> None:
    not_after = LINKS[name].not_after
    forbidden = {earlier.name for earlier in LINKS.values() if not_after and not_after.forbids(earlier)}
    assert forbidden == UNDONE.get(name, set())


def test_the_page_on_initialisation_has_a_row_for_every_link() -> None:
    page = Path(__file__).resolve().parents[2] / "docs/initialisation.md"
    rows = {
        line.split("|")[1].strip(" `") for line in page.read_text().splitlines() if line.startswith("| `")
    }
    assert set(LINKS) <= rows


def test_every_link_has_a_place_in_one_long_chain() -> None:
    chain = ("ranges", "smooth", "fold", "clip", "ridge", "own_output", "gptq", "bias", "block_linear")
    check_chain(find_links(chain))
    assert {*chain, "brecq"} == set(LINKS)
