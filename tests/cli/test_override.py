"""Fields that hold things by name, on the command line."""

import re

import pytest

from evolq_jax.calibration.chain import LINKS
from evolq_jax.calibration.link import NetworkLink
from evolq_jax.cli.override import override, print_fields, print_names
from evolq_jax.config.experiment import CalibrationConfig, Experiment
from evolq_jax.errors import UserError
from evolq_jax.search.config import SearchConfig

MINE = NetworkLink("mine", "does nothing", lambda calibration, state, settings: state)
CONFIG = Experiment(calibration=CalibrationConfig(chain=("ranges", MINE)))


def test_a_link_of_a_config_file_stays_until_names_take_its_place() -> None:
    assert override(CONFIG, ["--seed", "3"], "search").calibration.chain == ("ranges", MINE)
    changed = override(CONFIG, ["--calibration.chain", "ranges", "ridge", "bias"], "search")
    assert changed.calibration.chain == ("ranges", "ridge", "bias")


def test_help_says_what_stands_in_the_chain_and_what_names_stand_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_fields(Experiment, CONFIG, "search")
    print_names()
    shown = capsys.readouterr().out
    assert "--calibration.chain [LINK [LINK ...]]" in shown
    assert "ranges mine" in shown
    for name, link in LINKS.items():
        assert f"  {name} " in shown
        assert link.does in " ".join(shown.split())


@pytest.mark.parametrize(
    ("args", "value"),
    [
        ("--search.rescore-start", True),
        ("--search.rescore_start", True),
        ("--search.rescore-start True", True),
        ("--search.rescore-start=yes", True),
        ("--search.rescore-start 1", True),
        ("--no-search.rescore-start false", True),
        ("--search.rescore-start false", False),
        ("--search.rescore-start=OFF", False),
        ("--search.no-rescore-start", False),
        ("--search.no_rescore_start", False),
        ("--no-search.rescore-start", False),
        ("--no_search.rescore_start", False),
        ("--search.rescore-start --search.rescore-start false", False),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_flags_in_any_spelling(args: str, value: bool, before: bool) -> None:
    config = Experiment(search=SearchConfig(rescore_start=before))
    assert override(config, args.split(), "search").search.rescore_start is value


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        ("--data.num-evaluation none", "data.num_evaluation", None),
        ("--data.num_evaluation=Null", "data.num_evaluation", None),
        ("--quant.softmax-quantizer none", "quant.softmax_quantizer", None),
        ("--search.sites a b", "search.sites", ("a", "b")),
        ("--search.sites=a,b", "search.sites", ("a", "b")),
        ("--search.sites [a, b]", "search.sites", ("a", "b")),
        ("--landscape.blocks 1,2", "landscape.blocks", (1, 2)),
        ("--landscape.low -2.5", "landscape.low", -2.5),
        ("--landscape.low=-1e-1", "landscape.low", -0.1),
        ("--landscape.low -1 --landscape.low -2", "landscape.low", -2.0),
        ("--data.class-index none", "data.class_index", None),
        ("--data.calibration none", "data.calibration", "none"),
        ("--seed 1_000", "seed", 1000),
    ],
)
def test_values_in_any_spelling(args: str, field: str, value: object) -> None:
    found: object = override(Experiment(), args.split(), "search")
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--search.rescore-start maybe", "unexpected argument 'maybe'"),
        ("--no-search.passes", "unknown option '--no-search.passes'; did you mean '--search.passes'"),
        ("--search.rescore-star", "did you mean '--search.rescore-start'"),
        ("--no-search.rescore-star", "did you mean '--search.rescore-start'"),
        ("passes=3", "unexpected argument 'passes=3'; fields are set as in --search.passes 3"),
    ],
)
def test_what_no_spelling_can_mean_is_refused(args: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        override(Experiment(), args.split(), "search")
