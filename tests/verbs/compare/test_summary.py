from dataclasses import replace

import numpy as np
import pytest

from evolq_jax.metrics import Interval
from evolq_jax.runs.results.comparison import Wins
from evolq_jax.runs.results.networks import Fitness, SearchResult
from evolq_jax.verbs.compare.pictures import quality_figure, spread
from evolq_jax.verbs.compare.summary import Run, interval, summarise
from tests.sample_results import SCORES, SEARCH, point


def result(fitness: float, kl: float, top1: float | None) -> SearchResult:
    """A run that begins at a fitness of 1, a KL of 0.5 and a top-1 of 0.6."""
    init, final = replace(SCORES, kl=0.5, top1=0.6), replace(SCORES, kl=kl, top1=top1)
    if top1 is None:
        init, final = (replace(scores, top1=None, top5=None) for scores in (init, final))
    return replace(SEARCH, init=init, final=final, calibration_fitness=Fitness(1.0, fitness))


def runs(**methods: list[tuple[float, float, float | None]]) -> list[Run]:
    return [
        Run(method, seed, result(*numbers))
        for method, seeds in methods.items()
        for seed, numbers in enumerate(seeds)
    ]


def test_an_interval_is_student_s() -> None:
    values = [1.0, 2.0, 4.0]
    found = interval(values)
    # t(0.975, 2 degrees of freedom) from a printed table.
    half = 4.3027 * np.std(values, ddof=1) / np.sqrt(3)
    assert [found.mean, found.low, found.high] == pytest.approx([7 / 3, 7 / 3 - half, 7 / 3 + half], 1e-4)
    assert interval([3.0]) == Interval(3.0, None, None)


def test_wins_are_counted_seed_by_seed_in_the_metric_s_own_direction() -> None:
    found = summarise(
        ["greedy", "better"],
        runs(greedy=[(0.9, 0.4, 0.7), (0.8, 0.6, 0.5)], better=[(0.5, 0.3, 0.8), (0.9, 0.55, 0.6)]),
        "greedy",
    )
    better = found["better"]
    assert better.top1 is not None
    assert better.kl.wins == Wins(init=0.5, reference=1.0)
    assert better.top1.wins == Wins(init=0.5, reference=1.0)
    assert better.calibration_fitness.wins == Wins(init=1.0, reference=0.5)
    assert better.agreement.wins == Wins(init=0.0, reference=0.0)  # equal is no win
    assert found["greedy"].kl.wins.reference is None
    assert better.kl.change.mean == pytest.approx(0.425 - 0.5)


def test_metrics_that_need_labels_are_left_out_without() -> None:
    found = summarise(["only"], runs(only=[(0.9, 0.4, None)]), None)["only"]
    assert (found.top1, found.top5) == (None, None)
    assert found.kl.final.mean == 0.4


def test_a_value_holds_until_the_next_point() -> None:
    first = [point(n, kl=v) for n, v in [(0, 1.0), (10, 0.5), (30, 0.2)]]
    second = [point(n, kl=v) for n, v in [(0, 0.8), (20, 0.4)]]
    budgets, low, mean, high = spread([first, second], "kl")
    np.testing.assert_array_equal(budgets, [0, 10, 20, 30])
    np.testing.assert_allclose(low, [0.8, 0.5, 0.4, 0.2])
    np.testing.assert_allclose(high, [1.0, 0.8, 0.5, 0.4])
    np.testing.assert_allclose(mean, [0.9, 0.65, 0.45, 0.3])


def test_the_picture_has_a_panel_for_each_metric_that_all_runs_have() -> None:
    points = [point(n, kl=1.0 / n, top1=None) for n in (1, 2)]
    figure = quality_figure({"a": [points], "b": [points, points]}, ["kl", "agreement", "top1"])
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.axison] == [
        "KL to float (nats)",
        "agreement with float (%)",
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_all_lines_end_at_the_same_budget() -> None:
    short, long = ([point(n, kl=1.0 / n) for n in ends] for ends in ((1, 2), (1, 4)))
    for budget, end in ((3, 4), (9, 9)):
        (axes,) = quality_figure({"a": [short], "b": [long]}, ["kl"], budget).axes[:1]
        ends = [np.array(line.get_xydata()).tolist() for line in axes.lines[1::2]]
        assert ends == [[[2, 0.5], [end, 0.5]], [[4, 0.25], [end, 0.25]]]
