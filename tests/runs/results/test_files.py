import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.runs.directory import CONFIG, RESULT, RunDirectory
from evolq_jax.runs.results.comparison import ComparisonResult
from evolq_jax.runs.results.files import (
    FILES,
    Result,
    check_fingerprints,
    finished_result,
    read_result,
    write_result,
)
from evolq_jax.runs.results.landscape import LandscapeResult
from evolq_jax.runs.results.networks import BaselineResult, SearchResult
from evolq_jax.runs.typed_json import to_json
from evolq_jax.typing import Preprocessing
from tests.sample_results import BASELINE, COMPARISON, LANDSCAPE, SCORES, SEARCH, point

RESULTS = (
    replace(SEARCH, trajectory=(point(0.0), point(100.0, kl=0.1))),
    BASELINE,
    LANDSCAPE,
    COMPARISON,
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.write(CONFIG, to_json(Experiment()).encode())
    return run


def write(run: RunDirectory, content: Any) -> None:
    (run.path / RESULT).write_text(json.dumps(content))


def content_of(run: RunDirectory, result: Result) -> dict[str, Any]:
    write_result(run, result)
    return json.loads(run.read(FILES[type(result)]))


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.kind)
def test_a_result_is_read_as_it_was_written_wherever_it_lies(
    run: RunDirectory, tmp_path: Path, result: Result
) -> None:
    content = content_of(run, replace(result, run_dir=tmp_path / "elsewhere"))
    assert next(iter(content)) == "kind"
    assert content["kind"] == result.kind
    assert "run_dir" not in content
    assert read_result(run.path) == replace(result, run_dir=run.path)
    assert read_result(run.path, type(result)) == read_result(str(run.path))


def test_files_are_strict_json(run: RunDirectory) -> None:
    """JSON knows neither infinity nor NaN: there is no number."""
    lost = replace(SCORES, kl=math.inf, info_nce=math.nan)
    content = content_of(run, replace(SEARCH, final=lost))
    assert (content["final"]["kl"], content["final"]["info_nce"]) == (None, None)
    final = read_result(run.path, SearchResult).final
    assert math.isnan(final.kl)
    assert final.top1 == SCORES.top1


def test_another_verb_s_result_is_refused(run: RunDirectory) -> None:
    write_result(run, SEARCH)
    with pytest.raises(UserError, match="holds another verb's result, not a baseline's: name another"):
        read_result(run.path, BaselineResult)
    with pytest.raises(UserError, match=r"has no landscape\.json: it has not finished"):
        read_result(run.path, LandscapeResult)
    with pytest.raises(UserError, match="is no run directory"):
        read_result(run.path.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "comparison"}, "has the unknown kind 'comparison'"),
        ({"kind": "pruning"}, "has the unknown kind 'pruning': read it with the version that wrote it"),
        ({"evaluations": "81"}, "not a search's result: evaluations has a value of the wrong type"),
        ({"evaluation": 81}, "unknown key 'evaluation'; did you mean 'evaluations'"),
        ({"moves": None}, r"expected Moves @ \$.moves"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run: RunDirectory, change: dict[str, Any], message: str) -> None:
    write(run, content_of(run, SEARCH) | change)
    with pytest.raises(UserError, match=message) as caught:
        read_result(run.path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_damaged_file_is_named(run: RunDirectory, text: str) -> None:
    (run.path / RESULT).write_text(text)
    with pytest.raises(UserError, match=r"result\.json': not "):
        read_result(run.path)


def older(content: dict[str, Any]) -> dict[str, Any]:
    """The form of version 0.1: no kind, and neither setting nor provenance apart."""
    del content["kind"], content["provenance"]["chunks"], content["provenance"]["compiled_programs"]
    del content["setting"]["architecture"], content["setting"]["preprocessing"]
    return content | content.pop("setting") | content.pop("provenance")


def test_what_was_loaded_is_read_again(run: RunDirectory) -> None:
    sizes = {"depths": [2, 2], "gelu_form": "erf", "eps": 1e-6, "distilled": False, "pre_norm": True}
    setting = replace(SEARCH.setting, architecture=sizes, preprocessing=Preprocessing(8, None, mean=(0.4,)))
    result = replace(SEARCH, run_dir=run.path, setting=setting)
    write(run, content_of(run, result))
    assert read_result(run.path) == result
    assert setting.described == (
        "vit_tiny: depths [2, 2], gelu form erf, eps 1e-06, pre norm; images: no resize, crop 8, "
        "mean 0.4, std 0.5"
    )


@pytest.mark.parametrize("result", [SEARCH, BASELINE], ids=lambda result: result.kind)
def test_an_older_search_or_baseline_is_read(
    run: RunDirectory, result: SearchResult | BaselineResult
) -> None:
    write(run, older(content_of(run, result)))
    found = read_result(run.path, type(result))
    provenance = replace(result.provenance, chunks={})
    assert found == replace(result, run_dir=run.path, provenance=provenance)


def test_an_older_scan_and_comparison_are_read(run: RunDirectory) -> None:
    content = older(content_of(run, LANDSCAPE)) | {"kind": "plane"}
    del content["fingerprints"]
    (run.path / "landscape.json").write_text(json.dumps(content))
    found = read_result(run.path, LandscapeResult)
    assert (found.kind, found.setting) == ("landscape", LANDSCAPE.setting)
    content = content_of(run, COMPARISON)
    del content["kind"], content["methods"]["a_method_of_16_ch"]["kl"]["wins"]["reference"]
    (run.path / "comparison.json").write_text(json.dumps(content))
    method = read_result(run.path, ComparisonResult).methods["a_method_of_16_ch"]
    assert method.kl.wins.reference is None


def test_an_older_result_that_could_be_anything_is_refused(run: RunDirectory) -> None:
    write(run, {"init": {}, "final": {}})
    with pytest.raises(UserError, match="is of an older version and does not say which verb wrote it: run"):
        read_result(run.path)


def test_a_finished_run_of_another_config_is_refused(run: RunDirectory) -> None:
    assert finished_result(Experiment(), run.path, SearchResult) is None
    write_result(run, SEARCH)
    assert finished_result(Experiment(), run.path, SearchResult) == replace(SEARCH, run_dir=run.path)
    with pytest.raises(UserError, match="holds a finished search of another config: seed was 0 and is 1"):
        finished_result(Experiment(seed=1), run.path, SearchResult)


def test_changed_inputs_are_named(run: RunDirectory) -> None:
    check_fingerprints(run, {"weights": "other"})  # nothing has finished
    write_result(run, SEARCH)
    check_fingerprints(run, SEARCH.provenance.fingerprints | {"evaluation images": "not known then"})
    with pytest.raises(UserError, match=r"the weights of run .* have changed since: bring them back"):
        check_fingerprints(run, {"weights": "other"})
