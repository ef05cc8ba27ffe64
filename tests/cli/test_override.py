"""Fields that hold things by name, on the command line."""

import pytest

from evolq_jax.calibration.chain import LINKS
from evolq_jax.calibration.link import NetworkLink
from evolq_jax.cli.override import override, print_fields, print_names
from evolq_jax.config.experiment import CalibrationConfig, Experiment

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
