from pathlib import Path

import pytest

from tests.bad_input.conftest import Refuse
from tests.small_run import CONFIG_FILE


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--quant.weight-bits", "9"), "quant.weight_bits must be from 2 to 8, not 9"),
        (("--quant.activation_bits=1",), "quant.activation_bits must be from 2 to 8, not 1"),
        (("--search.passes", "0"), "search.passes must be at least 1, not 0"),
        (("--seed", "-1"), "seed must be from 0 to 4294967295, not -1"),
        (("--search.sites", "*/attn/qvk/weight"), "'*/attn/qvk/weight' matches no quantization site"),
        (("--search.sites", "head"), "'head' matches no quantization site"),
        (("--search.algorithm", "SNSE", "--search.parametrization", "log"), "did you mean 'SNES'?"),
        (("--search.fitness", "info_nec"), "unknown fitness 'info_nec'; did you mean 'info_nce'?"),
        (("--search.holdout-fitness", "kl+lokal"), "unknown fitness 'lokal'; did you mean 'local'?"),
        (("--search.fitness", "local", "--calibration.chain", "ranges", "brecq"), "leave one of them out"),
        (("--calibration.chain", "rangse"), "unknown initialiser 'rangse'; did you mean 'ranges'?"),
        (("--quant.scheme", "matmull"), "invalid choice 'matmull' for argument '--quant.scheme'"),
        (("--search.passes", "abc"), "Error parsing --search.passes: invalid literal for int()"),
        (("--search.passes",), "Missing value for argument '--search.passes'"),
        (("--seed", "1.5"), "Error parsing --seed"),
        (("--serach.passes", "3"), "unknown option '--serach.passes'; did you mean '--search.passes'?"),
        (("--passes=3",), "unknown option '--passes'; did you mean '--search.passes'?"),
        (("--dryrun",), "unknown option '--dryrun'; did you mean '--dry-run'?"),
        (("-x",), "unknown option '-x'"),
        (("--seeds", "3"), "`evolq search` has no option '--seeds'"),
        (("3",), "unexpected argument '3'"),
        (("--seed", "1", "2"), "unexpected argument '2'"),
        (("--preset", "fathful"), "argument --preset: invalid choice: 'fathful'"),
        (("--run-dir",), "argument --run-dir: expected one argument"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["search", "plan"])
def test_fields_and_options(
    refuse: Refuse, args: tuple[str, ...], more: tuple[str, ...], message: str
) -> None:
    assert message in refuse("search", "config.py", *more, *args)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config = (", "config file 'mine.py': SyntaxError"),
        ("import nothing_of_that_name", "config file 'mine.py', line 1: ModuleNotFoundError"),
        ("config = 3", "config file 'mine.py' defines no `config = Experiment(...)`"),
        (CONFIG_FILE + "config = type(config)(sead=1)", "unexpected keyword argument 'sead'"),
        (
            CONFIG_FILE
            + "from evolq_jax.config import *\nconfig = Experiment(quant=QuantConfig(weight_bits=9))",
            "config file 'mine.py': quant.weight_bits must be from 2 to 8, not 9",
        ),
        (
            CONFIG_FILE + "from dataclasses import replace\nconfig = replace(config, search=None)",
            "config file 'mine.py': search must be SearchConfig, not None",
        ),
        (
            CONFIG_FILE + "from dataclasses import replace\n"
            "config = replace(config, search=replace(config.search, sites='*/attn/*'))",
            "search.sites must be a tuple, each item a text, not '*/attn/*'",
        ),
        (CONFIG_FILE + "raise SystemExit(0)", "config file 'mine.py', line 4: SystemExit: 0"),
        (
            CONFIG_FILE + "from dataclasses import replace\nconfig = replace(config, seed=1.5)",
            "seed must be a whole number, not 1.5",
        ),
        (
            CONFIG_FILE + "from evolq_jax.config.experiment import *\nfrom dataclasses import replace\n"
            "config = replace(config, quant=QuantConfig(rules=(Rule('blocks/atn/*', bits=8),)))",
            "site pattern 'blocks/atn/*' matches no quantization site",
        ),
    ],
)
def test_config_files(refuse: Refuse, here: Path, text: str, message: str) -> None:
    (here / "mine.py").write_text(text)
    assert message in refuse("search", "mine.py")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            (),
            "name what to do (one of search, calibrate, baseline, compare,",
        ),
        (("serach", "config.py"), "unknown verb 'serach'; did you mean 'search'?"),
        (("search",), "`evolq search` needs a config file, as in: evolq search configs/"),
        (("train",), "`evolq train` needs a config file, as in: evolq train configs/train_digits.py"),
        (("search", "confg.py"), "no config file at 'confg.py'; did you mean 'config.py'?"),
        (
            ("search", "--seed", "1", "config.py"),
            "'--seed' comes before a config file: write evolq search CONFIG",
        ),
        (("train", "config.py"), "config file 'config.py' defines no `config = TrainExperiment(...)`"),
        (("models", "x"), "`evolq models` takes no argument 'x'"),
        (("calibrate", "config.py", "--dry-run"), "`evolq calibrate` has no option '--dry-run'"),
    ],
)
def test_verbs(refuse: Refuse, args: tuple[str, ...], message: str) -> None:
    assert message in refuse(*args)
