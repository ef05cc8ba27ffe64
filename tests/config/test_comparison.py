"""Methods of a comparison start equal, or differ on purpose."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evolq_jax.config.comparison import Comparison, Method, greedy, join
from evolq_jax.config.experiment import BaselineConfig, DataConfig, Experiment, ModelConfig
from evolq_jax.errors import UserError
from tests.small_run import small_config


@pytest.fixture
def config() -> Experiment:
    return small_config(Path("weights.safetensors"))


def compared(first: Experiment, second: Experiment, **settings: Any) -> Comparison:
    return Comparison("c", (Method("a", first), Method("b", second)), **settings)


def differing(config: Experiment) -> dict[str, tuple[Experiment, str]]:
    """Configs that would start elsewhere, by the part that differs, and the words that say so."""
    return {
        "model": (
            replace(config, model=ModelConfig("vit_digits", "other.safetensors")),
            r"`model\.weights` \(weights\.safetensors and other\.safetensors\)",
        ),
        "data": (replace(config, data=DataConfig(num_calibration=20)), r"`data\.num_evaluation` \(30 and"),
        "quant": (
            replace(config, quant=replace(config.quant, weight_bits=4)),
            r"`quant\.weight_bits` \(3 and 4\)",
        ),
        "calibration": (
            replace(config, calibration=replace(config.calibration, chain=("ranges", "own_output"))),
            r"`calibration\.chain`",
        ),
        "start": (replace(config, start="runs/x"), r"`start` \(None and runs/x\)"),
        "precision": (replace(config, precision="tf32"), r"`precision` \(float32 and tf32\)"),
    }


@pytest.mark.parametrize("part", ["model", "data", "quant", "calibration", "start", "precision"])
def test_methods_that_would_not_start_equal_are_refused_unless_it_is_meant(
    config: Experiment, part: Any
) -> None:
    other, words = differing(config)[part]
    with pytest.raises(UserError, match=rf"'a' and 'b' would not start equal: they differ in {words}"):
        compared(config, other)
    with pytest.raises(UserError, match=rf"varies=\('{part}',\) in a comparison's file, --vary {part} "):
        compared(config, other)
    assert compared(config, other, varies=(part,)).varies == (part,)


def test_methods_may_differ_in_how_they_search(config: Experiment) -> None:
    other = replace(config, search=greedy(config.search), baseline=BaselineConfig(optimizer="sgd"))
    assert len(compared(config, other).methods) == 2


def test_all_methods_have_one_budget(config: Experiment) -> None:
    own = replace(config, search=replace(config.search, budget=500))
    with pytest.raises(UserError, match=r"method 'b' has search\.budget 500, but all methods"):
        compared(config, own)
    assert compared(config, own, budget=500).budget == 500
    joined = join([own, replace(own, name="other")])
    assert joined.budget == 500
    descent = replace(config, baseline=BaselineConfig(budget=500))
    with pytest.raises(UserError, match=r"method 'b' has baseline\.budget 500"):
        Comparison("c", (Method("a", config), Method("b", descent, ("baseline",))))


def test_what_varies_is_joined(config: Experiment) -> None:
    other = replace(config, name="other", quant=replace(config.quant, weight_bits=4))
    with pytest.raises(UserError, match="would not start equal"):
        join([config, other])
    assert join([config, other], ("quant",)).varies == ("quant",)
    fine = replace(config, name="third", precision="tf32")
    parts = [compared(config, other, varies=("quant",)), fine]
    assert join(parts, ("precision",)).varies == ("quant", "precision")
