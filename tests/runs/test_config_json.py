import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evolq_jax.calibration.chain import LINKS, check_links
from evolq_jax.calibration.link import NetworkLink
from evolq_jax.config.experiment import CalibrationConfig, Experiment, QuantConfig, Rule, SearchConfig
from evolq_jax.config.load import load_config
from evolq_jax.config.presets import faithful
from evolq_jax.errors import UserError
from evolq_jax.runs.config_json import from_json, to_json
from tests.tiny import make_tiny

FOLDER = Path(__file__).resolve().parents[2] / "configs"
CONFIGS = sorted(path for path in FOLDER.glob("*.py") if not path.stem.startswith(("train_", "compare_")))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file_survives_json(path: Path) -> None:
    config = load_config(path)
    for version in (config, faithful(config)):
        assert from_json(to_json(version), "it") == version


def test_values_of_every_kind_survive() -> None:
    rules = (Rule("head/weight", bits=0), Rule("*/norm1", bits=6, observer="percentile", signed=False))
    config = Experiment(quant=QuantConfig(softmax_bits=4, rules=rules), seed=2**32 - 1)
    text = to_json(config)
    assert from_json(text, "it") == config
    assert from_json(to_json(from_json(text, "it")), "it") == config
    assert json.loads(text)["quant"]["rules"][0]["pattern"] == "head/weight"


def test_fields_that_an_older_run_lacks_take_their_defaults() -> None:
    given = json.loads(to_json(Experiment(seed=3)))
    del given["search"]["passes"]
    assert from_json(json.dumps(given), "it") == Experiment(seed=3)


def test_a_field_that_an_older_run_has_is_passed_over() -> None:
    given = json.loads(to_json(Experiment(seed=3)))
    given["search"]["output_start"] = True
    assert from_json(json.dumps(given), "it") == Experiment(seed=3)


def change(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(given: dict[str, Any]) -> None:
        for key in path[:-1]:
            given = given[key]
        given[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (change("sead", value=1), "unknown key 'sead'; did you mean 'seed'?"),
        (change("search", "pases", value=1), "unknown key 'pases'; did you mean 'passes'? @ $.search"),
        (change("seed", value="3"), "seed has a value of the wrong type"),
        (change("seed", value=1.5), "seed has a value of the wrong type"),
        (change("seed", value="x"), "expected int @ $.seed"),
        (change("search", "sites", value="abc"), "search.sites has a value of the wrong type"),
        (change("search", value=None), "expected SearchConfig @ $.search"),
        (
            change("quant", "scheme", value="all"),
            "must be one of fully_quantized, matmul, deploy @ $.quant.scheme",
        ),
        (change("data", "num_evaluation", value="x"), "expected int | None @ $.data.num_evaluation"),
        (change("search", "passes", value=0), "search.passes must be at least 1, not 0"),
        (change("quant", "weight_bits", value=9), "quant.weight_bits must be from 2 to 8, not 9"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(apply: Callable[[dict[str, Any]], None], message: str) -> None:
    given = json.loads(to_json(Experiment()))
    apply(given)
    with pytest.raises(UserError) as caught:
        from_json(json.dumps(given), "run/config.json")
    assert str(caught.value).startswith("run/config.json: not a config: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "as JSON"), ("[]", "object but []"), ("3", "object but 3"), ("[" * 100000, "too deeply")],
)
def test_what_is_no_object_is_no_config(text: str, message: str) -> None:
    with pytest.raises(UserError, match="it: not ") as caught:
        from_json(text, "it")
    assert message in str(caught.value)


MINE = NetworkLink("mine", "does nothing", lambda calibration, state, settings: state)


def test_a_link_of_python_is_recorded_by_name_and_not_found_again() -> None:
    config = Experiment(calibration=CalibrationConfig(chain=("ranges", MINE, LINKS["bias"])))
    text = to_json(config)
    assert json.loads(text)["calibration"]["chain"] == ["ranges", "mine", "bias"]
    again = from_json(text, "run/config.json")
    assert to_json(again) == text
    assert again == from_json(text, "it")
    with pytest.raises(UserError, match="'mine' is no link that evolq_jax brings along") as caught:
        check_links(again.calibration.links, make_tiny().parts, ())
    assert "\n" not in str(caught.value)
    known = to_json(Experiment(calibration=CalibrationConfig(chain=("ranges", LINKS["bias"]))))
    assert from_json(known, "it").calibration.chain == ("ranges", "bias")


def my_loss(student: Any, teacher: Any) -> Any:
    return abs(student - teacher).max()


def test_a_function_is_recorded_by_name_and_refuses_to_run_from_there() -> None:
    config = Experiment(search=SearchConfig(fitness="kl+my_loss", fitness_functions=(my_loss,)))
    text = to_json(config)
    assert json.loads(text)["search"]["fitness_functions"] == ["my_loss"]
    again = from_json(text, "it")
    assert to_json(again) == text
    with pytest.raises(UserError, match="'my_loss' is no fitness term that evolq_jax brings along"):
        again.search.fitness_functions[0].function(1, 2)  # type: ignore[union-attr]
