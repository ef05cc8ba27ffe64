"""A result's first lines, by hand-made numbers."""

from dataclasses import replace

import pytest

from evolq_jax.metrics import Delta, Interval
from evolq_jax.quantized.size import Size
from evolq_jax.runs.results.headline import headline
from evolq_jax.runs.results.networks import SearchResult
from tests.sample_results import SEARCH, SETTING

SIZE = Size(quantized=3_000_000, float32=22_500_000)
CORRECTED = ("ranges", "ridge", "gptq", "bias")
NONE = Interval(0.0, 0.0, 0.0)


def lost(top1: Interval | None, chain: tuple[str, ...] = CORRECTED) -> SearchResult:
    """A result that lost so much top-1, or without labels 5 points of agreement."""
    delta = Delta(top1=top1, top5=top1, agreement=Interval(-0.05, -0.06, -0.04), kl=NONE)
    return replace(SEARCH, from_float=delta, size=SIZE, setting=replace(SETTING, chain=chain))


def test_the_cost_and_the_size_come_first() -> None:
    numbers, words = headline(lost(Interval(-0.02, -0.031, -0.008)))
    assert numbers == (
        "final - float: top-1 -2.0 [-3.1, -0.8] points. Size: 3.00 MB instead of 22.50 MB, 7.5 times smaller."
    )
    assert words == (
        "Of 100 answers, 4-bit weights and 8-bit activations make 2.0 wrong that were right, "
        "likely 0.8 to 3.1."
    )


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(-0.002, -0.012, 0.008), "cost nothing that shows, likely less than 1.2 answers in 100."),
        (Interval(0.02, 0.01, 0.03), "make 2.0 right that were wrong (1,300 images were tried)."),
        (Interval(-0.02, None, None), "cost 2.0 (1,300 images were tried)."),
    ],
)
def test_the_words_follow_the_interval(interval: Interval, words: str) -> None:
    assert headline(lost(interval))[1].endswith(words)


def test_without_labels_answers_that_change_count() -> None:
    numbers, words = headline(lost(None))
    assert numbers.startswith("final - float: agreement -5.0 [-6.0, -4.0] points.")
    assert words.endswith("the network changes its answer on 5.0 of 100 images (1,300 were tried).")


@pytest.mark.parametrize("chain", [("ranges",), ("ranges", "own_output"), ("ranges", "ridge")])
def test_weights_that_were_not_corrected_get_a_hint(chain: tuple[str, ...]) -> None:
    assert headline(lost(NONE, chain))[-1].endswith("--preset strong")
    assert len(headline(lost(NONE, (*chain, "gptq")))) == 2


def test_older_results_have_no_headline() -> None:
    assert headline(SEARCH) == []
