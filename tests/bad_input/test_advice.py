"""What messages tell a user to do: each is done, and the command then goes through."""

import contextlib
import re
import shlex
import sys
from itertools import permutations
from pathlib import Path

import pytest

from evolq_jax.calibration.chain import LINKS, check_chain, find_links
from evolq_jax.cli import main as cli
from evolq_jax.errors import UserError
from tests.bad_input.conftest import Refuse
from tests.measured import without_timing
from tests.small_run import CONFIG_FILE

LOG = "--search.parametrization log"
DE = f"{LOG} --search.algorithm DifferentialEvolution"
UNLIKE = "--search.fitness info_nce --search.batch-size none"
DEPLOY = "--quant.scheme deploy"
# What is asked for, what the message says, and what is asked for instead. {1} is a part of the message.
ADVICE = [
    ("--search.pases 3", r"did you mean '--(search\.passes)'", "--{1} 3"),
    ("--search.output-size 3", r"did you mean '--([\w.-]+)'", "--{1} 4"),
    ("--data.num-calibration 99999", r"has only (\d+)", "--data.num-calibration {1}"),
    ("--data.num-evaluation 99999", r"has only (\d+)", "--data.num-evaluation {1}"),
    ("--search.batch-size 3", r"change (search\.batch_size) or", "--{1} 5"),
    ("--search.batch-size 3", r"or (data\.num_calibration)", "--search.batch-size 3 --{1} 30"),
    ("--calibration.batch-size 7", r"change (calibration\.batch_size) or", "--{1} 10"),
    ("--search.holdout 0.01", r"use more images, a smaller batch, or (--search\.holdout 0)", "{1}"),
    ("--search.budget 3", r"below the (\d+) candidate-images", "--search.budget {1}"),
    ("--search.halving 5", r"lower (search\.halving)", "--{1} 2"),
    ("--search.algorithm Grid --search.restarts 2", r"search\.restarts must be (1)", "--search.restarts {1}"),
    ("--search.parametrization log", r"choose '(raw)'", "--search.parametrization {1}"),
    ("--search.algorithm SNES", r"choose '(log)'", "--search.algorithm SNES --search.parametrization {1}"),
    ("--search.zero-points --search.algorithm EvolQ --search.parametrization raw", r"needs a log param", ""),
    (f"{LOG} --search.algorithm SNSE", r"did you mean '(\w+)'", LOG + " --search.algorithm {1}"),
    ("--search.fitness kll", r"did you mean '(\w+)'", "--search.fitness {1}"),
    (f"{DE} --search.population-size 2", r"population_size >= (4)", DE + " --search.population-size {1}"),
    ("--calibration.chain rangse", r"did you mean '(\w+)'", "--calibration.chain {1}"),
    ("--calibration.chain ridge", r"`(ranges)` comes first", "--calibration.chain {1} ridge"),
    ("--quant.weight-bits 9", r"from (2) to 8", "--quant.weight-bits {1}"),
    ("--memory 12", r"write it like (12GiB)", "--memory {1}"),
    ("--mesh data=64", r"there are (\d+)", "--mesh data={1}"),
    ("--data.evaluation-resize 4", r"image size \((\d+)\)", "--data.evaluation-resize {1}"),
    ("--data.class-index nosuch", r"--data\.class-index (None)", "--data.class-index {1}"),
    ("--model.name vit_digit", r"did you mean '(\w+)'", "--model.name {1}"),
    ("--milestones 5000", r"from 0 to (\d+)", "--milestones {1}"),
    ("--name a/b", r"must be a (plain) word", "--name {1}"),
    ("--preset strongg", r"choose from .*'(strong)'", "--preset {1} --calibration.batch-size 10"),
    ("--memory 1MB", r"about (\d+) MiB; give more", "--memory {1}MiB"),
    (
        "--quant.integer-layer-norm",
        r"needs (quant\.scheme fully_quantized)",
        "--quant.integer-layer-norm --{1}",
    ),
    ("--precision bfloat16", r"leave --precision out for (float32)", "--precision {1}"),
    ("--mesh dta=1", r"did you mean '(data)'", "--mesh {1}=1"),
    ("--preprocessing.crop 12", r"(leave it out)", ""),
    ("--preprocessing.mean 1 2", r"must have (1) numbers, one per channel", "--preprocessing.mean {1}"),
    (
        f"{UNLIKE} --data.num-calibration 509 --calibration.batch-size 509",
        r"set data\.num_calibration to (\d+)",
        f"{UNLIKE} --data.num-calibration {{1}}",
    ),
    (f"{DEPLOY} --quant.softmax-bits 4", r"softmax_bits must be (8)", f"{DEPLOY} --quant.softmax-bits {{1}}"),
    (
        f"{DEPLOY} --quant.softmax-quantizer log2",
        r"softmax_quantizer must be (uniform)",
        f"{DEPLOY} --quant.softmax-quantizer {{1}}",
    ),
    (
        f"{DEPLOY} --quant.activation-observer ptf",
        r"activation_observer must be for example (omse)",
        f"{DEPLOY} --quant.activation-observer {{1}}",
    ),
    (
        f"{DEPLOY} --quant.bias-correction",
        r"bias_correction must be (off)",
        f"{DEPLOY} --quant.bias-correction {{1}}",
    ),
    (
        "--quant.integer-softmax",
        r"needs (quant\.scheme fully_quantized) and quant\.softmax_quantizer log2",
        "--quant.integer-softmax --{1} --quant.softmax-quantizer log2",
    ),
    (
        "--search.fitness kl+local --calibration.chain ranges brecq",
        r"'(brecq)' has replaced by integers: leave one of them out",
        "--search.fitness kl+local",
    ),
]
SCAN = "--landscape.num-images 20 --landscape.batch-size 10 --landscape.no-plots"
SCANS = [
    ("--landscape.batch-size 10", r"there are (20) calibration", f"{SCAN} --landscape.num-images {{1}}"),
    (f"{SCAN} --landscape.batch-size 7", r"change (landscape\.num_images) or", f"{SCAN} --{{1}} 10"),
    (f"{SCAN} --landscape.second gaussian", r"set landscape\.kind (plane)", f"{SCAN} --landscape.kind {{1}}"),
    (f"{SCAN} --landscape.points 9999999", r"at most ([\d,]+) points", f"{SCAN} --landscape.points 51"),
    (
        f"{SCAN} --landscape.kind plane --landscape.direction ratio",
        r"for example to (gaussian)",
        f"{SCAN} --landscape.kind plane --landscape.direction ratio --landscape.second {{1}}",
    ),
    (f"{SCAN} --landscape.direction between", r"name one in (landscape\.towards)", f"{SCAN}"),
    (f"{SCAN} --landscape.blocks 9", r"run from 0 to (\d)", f"{SCAN} --landscape.blocks {{1}}"),
    (f"{SCAN} --landscape.losses klx", r"'(kl)'", f"{SCAN} --landscape.losses {{1}}"),
]

# A comparison joins two experiments: `config.py` and `other.py`, which has another name and other fields.
OTHER = f"""\
{CONFIG_FILE}
from dataclasses import replace
config = replace(config, name="other", quant=replace(config.quant, weight_bits=4))
"""
COMPARISONS = [
    ("other.py", r"--(vary) quant where", "other.py --{1} quant"),
    ("other.py", r"differ in `(quant\.weight_bits)`", "other.py --{1} 3"),
    (
        "--search.budget 500 --budget 800",
        r"set (search\.budget) to None, and .* --budget",
        "--{1} None --budget 800",
    ),
    ("--seed 3", r"set (--seeds), not --seed", "{1} 3"),
    ("--budget 3", r"below the (\d+) candidate-images", "--budget {1}"),
    ("--reference smal", r"did you mean '(\w+)'", "--reference {1}"),
    ("--sedes 3", r"did you mean '(--seeds)'", "{1} 3"),
    ("other.py --vray quant", r"did you mean '(--vary)'", "other.py {1} quant"),
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans do not time the network."""
    for verb in ("search", "landscape"):
        without_timing(monkeypatch, verb)


CASES = [
    (verb, *case)
    for verb, cases in (("search", ADVICE), ("landscape", SCANS), ("compare", COMPARISONS))
    for case in cases
]


@pytest.mark.parametrize(
    ("verb", "wrong", "pattern", "right"), CASES, ids=[f"{verb} {wrong}" for verb, wrong, _, _ in CASES]
)
def test_advice_can_be_followed(
    refuse_late: Refuse,
    quick: None,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    wrong: str,
    pattern: str,
    right: str,
) -> None:
    (here / "other.py").write_text(OTHER)
    message = refuse_late(verb, "config.py", *shlex.split(wrong), "--dry-run")
    found = re.search(pattern, message)
    assert found, message
    fixed = right.replace("{1}", found.group(1) if found.groups() else "")
    monkeypatch.setattr(sys, "argv", ["evolq", verb, "config.py", *shlex.split(fixed), "--dry-run"])
    cli.main()
    assert "plan of" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    ["search config.py --nosuch 3", "search config.py --top 3", "nosuch", "search config.py --model.name x"],
)
def test_commands_that_messages_name(
    refuse_late: Refuse, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    found = re.search(r"`evolq ([^`]*)` (lists|has examples)", refuse_late(*wrong.split()))
    assert found
    monkeypatch.setattr(sys, "argv", ["evolq", *found.group(1).replace("CONFIG", "config.py").split()])
    with contextlib.suppress(SystemExit):
        cli.main()
    shown = capsys.readouterr()
    assert shown.err == ""
    assert len(shown.out.splitlines()) > 10


@pytest.mark.parametrize("order", list(permutations(LINKS, 2)), ids=" ".join)
def test_links_are_put_where_messages_say(order: tuple[str, ...]) -> None:
    """Each piece of advice about a chain is followed until there is none."""
    chain, said = list(order), list[str]()
    while message := refused(chain):
        assert message not in said
        said.append(message)
        if "`ranges` comes first" in message:
            chain = ["ranges", *(name for name in chain if name != "ranges")]
        elif move := re.search(r"put '(\w+)' (?:last|before '(\w+)')$", message):
            chain.remove(move[1])
            chain.insert(chain.index(move[2]) if move[2] else len(chain), move[1])
        else:
            assert message.endswith("leave one out")
            chain.pop()


def refused(chain: list[str]) -> str:
    try:
        check_chain(find_links(chain))
    except UserError as error:
        return str(error)
    return ""


def test_a_run_directory_that_is_taken(
    refuse_late: Refuse, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "precious.txt").write_text("")
    assert "name another with --run-dir" in refuse_late("calibrate", "config.py", "--run-dir", "mine")
    monkeypatch.setattr(sys, "argv", ["evolq", "calibrate", "config.py", "--run-dir", "other"])
    cli.main()
    assert "calibrated" in capsys.readouterr().out
