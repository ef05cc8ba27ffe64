from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evolq_jax.calibration.chain import LINKS
from evolq_jax.calibration.link import LayerLink, WalkConfig
from evolq_jax.calibration.links.ranges import RangesConfig
from evolq_jax.calibration.links.ridge import RidgeConfig
from evolq_jax.config.comparison import Comparison, Method
from evolq_jax.config.experiment import (
    BrecqConfig,
    CalibrationConfig,
    ClipConfig,
    DataConfig,
    Experiment,
    LandscapeConfig,
    QuantConfig,
    Rule,
    SearchConfig,
)
from evolq_jax.config.load import load_config
from evolq_jax.config.presets import faithful, with_preset
from evolq_jax.errors import UserError
from evolq_jax.quant.scheme import resolve
from evolq_jax.training import TrainExperiment
from tests.tiny import make_tiny

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file_loads(path: Path) -> None:
    config = load_config(path, object)
    assert isinstance(config, Experiment | TrainExperiment | Comparison)
    if not isinstance(config, TrainExperiment):
        assert config.name == path.stem


def test_faithful_has_the_released_settings() -> None:
    before = Experiment(
        quant=QuantConfig(
            "fully_quantized",
            weight_bits=4,
            edge_weight_bits=8,
            signed_weights=True,
            softmax_quantizer="log2",
        ),
        search=SearchConfig(
            algorithm="SNES", sites=("*",), passes=10, fitness="kl", temperature=1.0, batch_size=50
        ),
    )
    config = faithful(before)
    quant, search = config.quant, config.search
    assert (quant.weight_observer, quant.activation_observer, quant.residual_observer) == (
        "minmax",
        "omse",
        "ptf",
    )
    assert (quant.signed_weights, quant.softmax_quantizer, quant.integer_softmax) == (False, "uniform", False)
    assert (quant.weight_bits, quant.edge_weight_bits) == (4, None)
    assert quant.integer_layer_norm
    assert quant.bias_correction
    assert search.algorithm == "EvolQ"
    assert search.sites == ("*/attn*/[qk]*/weight", "*/attn*/proj/weight")
    assert (search.parametrization, search.mutation, search.replacement) == ("raw", "absolute", "worst")
    assert (search.passes, search.generations, search.population_size) == (10, 3, 1)
    assert (search.pool_size, search.tournament_size) == (15, 10)
    assert (search.fitness, search.temperature) == ("info_nce", 3.0)
    assert [search.fitted(count).batch_size for count in (100, 1000, 128)] == [100, 100, 64]
    assert search.holdout == 0.0
    assert search.teacher == "integer_layer_norm"
    assert search.rescore_start
    assert config.calibration.chain == ("ranges",)


@pytest.mark.parametrize(("bits", "epsilon"), [(3, 1e-3), (4, 1e-3), (8, 1e-4)])
def test_faithful_steps_by_the_weight_bits(bits: int, epsilon: float) -> None:
    config = faithful(Experiment(quant=QuantConfig(weight_bits=bits)))
    assert config.search.epsilon == epsilon


def test_faithful_keeps_what_the_experiment_is_about() -> None:
    before = Experiment(
        name="mine",
        data=DataConfig(calibration="a", num_calibration=30),
        quant=QuantConfig("matmul", weight_bits=3, activation_bits=6, rules=(Rule("head/weight", bits=8),)),
        calibration=CalibrationConfig(batch_size=30, image_chunk=5),
        search=SearchConfig(passes=7, image_chunk=5, population_chunk=2),
        seed=4,
    )
    config = faithful(before)
    assert (config.name, config.data, config.seed) == ("mine", before.data, 4)
    assert (config.quant.scheme, config.quant.weight_bits, config.quant.activation_bits) == ("matmul", 3, 6)
    assert config.quant.rules == before.quant.rules
    assert config.search.passes == 7
    assert (config.search.image_chunk, config.search.population_chunk) == (5, 2)
    assert not config.quant.integer_layer_norm  # matmul leaves LayerNorm in float
    assert config.search.teacher == "float"


def test_presets_keep_to_what_deploy_executes() -> None:
    for preset in ("fast", "strong", "thorough"):
        quant = with_preset(Experiment(quant=QuantConfig("deploy")), preset).quant
        assert quant.scheme == "deploy"
        specs = resolve(quant, make_tiny().sites).specs
        assert {spec.observer.name for _, spec in specs} == {"omse"}


def test_presets_by_name() -> None:
    config = Experiment()
    assert with_preset(config, "default") is config
    assert with_preset(config, "faithful") == faithful(config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataConfig(num_calibration=0), "data.num_calibration must be at least 1, not 0"),
        (lambda: DataConfig(num_evaluation=-1), "data.num_evaluation must be at least 1"),
        (lambda: DataConfig(evaluation_resize=0), "data.evaluation_resize must be at least 1"),
        (lambda: DataConfig(cache_gib=-1), "data.cache_gib must not be negative, not -1"),
        (lambda: CalibrationConfig(batch_size=0), "calibration.batch_size must be at least 1"),
        (lambda: CalibrationConfig(image_chunk=0), "calibration.image_chunk must be at least 1"),
        (lambda: CalibrationConfig(chain=()), "calibration.chain is empty"),
        (lambda: CalibrationConfig(chain=("gptq",)), "calibration.chain is empty or begins otherwise"),
        (lambda: CalibrationConfig(damping=0.0), "calibration.damping must be positive, not 0.0"),
        (lambda: CalibrationConfig(pull=1.5), "calibration.pull must be from 0 to 1, not 1.5"),
        (
            lambda: Experiment(
                quant=QuantConfig(bias_correction=True),
                calibration=CalibrationConfig(chain=("ranges", "gptq")),
            ),
            "calibration.chain's 'gptq' needs quant.bias_correction off",
        ),
        (lambda: CalibrationConfig(chain=("range",)), "unknown initialiser 'range'; did you mean 'ranges'?"),
        (
            lambda: CalibrationConfig(chain=("ranges", replace(LINKS["bias"], walk=WalkConfig(0.5)))),
            "calibration.chain has 'bias', which is not the one that evolq_jax knows by that name",
        ),
        (lambda: Experiment(evaluation_batch=0), "evaluation_batch must be at least 1"),
        (lambda: Experiment(seed=-1), "seed must be from 0 to 4294967295, not -1"),
        (lambda: Experiment(seed=2**32), "seed must be from 0 to 4294967295"),
        (lambda: Experiment(name=""), "name '' must be a plain word"),
        (lambda: Experiment(name="../up"), "name '../up' must be a plain word"),
        (lambda: with_bits(weight_bits=9), "quant.weight_bits must be from 2 to 8, not 9"),
        (lambda: with_bits(activation_bits=1), "quant.activation_bits must be from 2 to 8, not 1"),
        (lambda: with_bits(softmax_bits=16), "quant.softmax_bits must be from 2 to 8, not 16"),
        (
            lambda: Experiment(quant=QuantConfig("matmull")),  # type: ignore[arg-type]
            "quant.scheme has the unknown value 'matmull'; did you mean 'matmul'?",
        ),
        (
            lambda: Experiment(calibration=CalibrationConfig(token_weights="equals")),  # type: ignore[arg-type]
            "calibration.token_weights has the unknown value 'equals'; did you mean 'equal'?",
        ),
        (
            lambda: with_bits(rules=(Rule("a"), Rule("b", observer="mse"))),  # type: ignore[arg-type]
            "quant.rules[1].observer has the unknown value 'mse'; did you mean 'omse'?",
        ),
        (
            lambda: Experiment(precision="fp32"),  # type: ignore[arg-type]
            "precision has the unknown value 'fp32'; did you mean 'tf32'? (known: float32, tf32, bfloat16)",
        ),
        (
            lambda: Comparison("c", (Method("m", Experiment(), ("serach",)),)),  # type: ignore[arg-type]
            "methods[0].stages[0] has the unknown value 'serach'; did you mean 'search'?",
        ),
        (
            lambda: Experiment(data=DataConfig(evaluation_resize="chekpoint")),  # type: ignore[arg-type]
            "data.evaluation_resize has the unknown value 'chekpoint'; did you mean 'checkpoint'? "
            "(known: checkpoint or a number)",
        ),
        (
            lambda: Experiment(precision=32),  # type: ignore[arg-type]
            "precision has the unknown value '32'; did you mean 'tf32'?",
        ),
        (
            lambda: LandscapeConfig(losses=["kl", "ce"]),  # type: ignore[arg-type]
            "landscape.losses[1] has the unknown value 'ce'",
        ),
        (lambda: with_bits(rules=(Rule("a", bits=1),)), "pattern 'a': bits must be from 2 to 8, not 1"),
    ],
)
def test_what_cannot_be_right_is_rejected(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)


def with_bits(**fields: Any) -> Experiment:
    return Experiment(quant=replace(QuantConfig(), **fields))


def test_zero_bits_in_a_rule_leave_sites_in_float() -> None:
    assert with_bits(rules=(Rule("a", bits=0),)).quant.rules[0].bits == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config = (", "SyntaxError"),
        ("x = 1\nconfig = nothing\n", ", line 2: NameError: name 'nothing' is not defined"),
        (
            "from evolq_jax.config.experiment import DataConfig\nDataConfig(num_calibration=0)",
            "data.num_calibration must",
        ),
        ("other = 1", "defines no `config = Experiment(...)`"),
        ("config = 1", "defines no `config = Experiment(...)`"),
    ],
)
def test_a_config_file_that_fails_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"config file '{path}'")
    assert message in str(caught.value)


def test_a_missing_config_file_is_named_with_the_closest(tmp_path: Path) -> None:
    (tmp_path / "digits_w2a8.py").write_text("")
    with pytest.raises(UserError, match=r"no config file at .*; did you mean .*digits_w2a8\.py"):
        load_config(tmp_path / "digits_w3a.py")


def test_loading_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from evolq_jax.config.experiment import Experiment\nconfig = Experiment(seed=5)\n")
    assert load_config(path).seed == 5
    assert [file.name for file in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize(("bits", "softmax", "gelu"), [(8, "uniform", "uniform"), (4, "log", "shifted_log")])
def test_strong_is_fast_with_corrected_weights_at_the_config_s_bits(
    bits: int, softmax: str, gelu: str
) -> None:
    quant = QuantConfig("fully_quantized", weight_bits=3, activation_bits=bits, integer_layer_norm=True)
    config = Experiment(quant=quant)
    first, more, longest = (with_preset(config, preset) for preset in ("fast", "strong", "thorough"))
    assert first.quant == more.quant == longest.quant
    assert (more.quant.scheme, more.quant.weight_bits, more.quant.activation_bits) == (
        "fully_quantized",
        3,
        bits,
    )
    specs = dict(resolve(more.quant, make_tiny().sites).specs)
    assert specs["blocks/norm1"].observer.name == "pow2"
    found = [specs[f"blocks/{name}"].quantizer.name for name in ("attn/softmax", "mlp/gelu")]
    assert found == [softmax, gelu]
    assert not more.quant.integer_layer_norm
    assert first.calibration.chain == ("ranges", "own_output")
    assert more.calibration.chain == ("ranges", "ridge", "gptq", "bias")
    assert more.search == config.search
    assert first.search == replace(config.search, generations=config.search.generations // 2)
    assert longest.search == replace(config.search, passes=3 * config.search.passes)
    assert longest.calibration == first.calibration


def test_links_get_the_settings_of_the_config_and_keep_those_of_python() -> None:
    mine = LayerLink("mine", "does nothing", lambda spec, moments, layer, settings: layer, settings=3)
    config = CalibrationConfig(
        ("ranges", "fold", "clip", LINKS["ridge"], "gptq", mine),
        damping=1.5,
        pull=0.25,
        token_weights="equal",
        fisher=True,
        clip=ClipConfig(("a",)),
    )
    ranges, fold, clip, ridge, gptq, own = config.links
    assert ranges.settings == fold.settings == RangesConfig(fisher=True)
    assert clip.settings == ClipConfig(("a",))
    assert ridge.settings == RidgeConfig(1.5)
    assert gptq.settings is None
    for link in (ridge, gptq):
        assert isinstance(link, LayerLink)
        assert link.walk == WalkConfig(0.25, "equal")
    assert own == mine
    assert CalibrationConfig(chain=("ranges", "brecq")).links[1].settings == BrecqConfig()
