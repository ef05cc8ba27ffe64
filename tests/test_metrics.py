from dataclasses import asdict, dataclass

import numpy as np
import pytest

from evolq_jax.metrics import CONTRASTIVE_BATCH, ImageScores, mean_scores, paired_delta, score


@dataclass
class Case:
    logits: np.ndarray
    teacher: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module")
def case() -> Case:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((30, 10)).astype(np.float32)
    teacher = logits + rng.standard_normal((30, 10)).astype(np.float32)
    return Case(logits, teacher, rng.integers(0, 10, 30).astype(np.int32))


def make_scores(seed: int, count: int = 40, labels: bool = True) -> ImageScores:
    rng = np.random.default_rng(seed)
    hits = rng.integers(0, 2, (3, count)).astype(np.float64)
    return ImageScores(
        hits[0] if labels else None, hits[1] if labels else None, hits[2], rng.exponential(1.0, count), 1.0
    )


def test_scores_are_what_a_plain_loop_counts(case: Case) -> None:
    scores = score(case.logits, case.teacher, case.labels)
    for i, (row, teacher, label) in enumerate(zip(case.logits, case.teacher, case.labels, strict=True)):
        ranked = sorted(range(10), key=lambda c, row=row: -row[c])
        p, q = (np.exp(r.astype(np.float64)) / np.exp(r.astype(np.float64)).sum() for r in (teacher, row))
        assert scores.top1 is not None
        assert scores.top5 is not None
        assert scores.top1[i] == (ranked[0] == label)
        assert scores.top5[i] == (label in ranked[:5])
        assert scores.agreement[i] == (ranked[0] == np.argmax(teacher))
        assert scores.kl[i] == pytest.approx(np.sum(p * np.log(p / q)), rel=1e-4, abs=1e-6)


def test_the_float_network_agrees_with_itself(case: Case) -> None:
    scores = score(case.teacher, case.teacher, case.labels)
    assert scores.agreement.all()
    assert not scores.kl.any()


def test_equal_logits_are_ranked_by_index() -> None:
    logits = np.zeros((2, 10), np.float32)
    scores = score(logits, logits, np.array([4, 5], np.int32))
    assert scores.top5 is not None
    assert scores.top1 is not None
    assert scores.top5.tolist() == [1.0, 0.0]
    assert scores.top1.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("classes", "top5"), [(2, None), (5, None), (6, 0.5)])
def test_a_top_five_of_five_classes_is_left_out(classes: int, top5: float | None) -> None:
    logits = np.tile(np.arange(classes, dtype=np.float32), (2, 1))
    scores = mean_scores(score(logits, logits, np.array([0, 1], np.int32)))
    assert scores.top5 == top5
    assert scores.top1 == (0.5 if classes == 2 else 0.0)


def test_one_output_is_seen() -> None:
    teacher = np.array([[-2.0], [1.0], [3.0], [0.5]], np.float32)
    logits = np.array([[-1.0], [-1.0], [2.0], [0.5]], np.float32)
    scores = score(logits, teacher, np.array([0, 1, 1, 0], np.int32))
    assert scores.agreement.tolist() == [1.0, 0.0, 1.0, 1.0]
    assert scores.kl.tolist() == [0.5, 2.0, 0.5, 0.0]
    assert scores.top1 is not None
    assert scores.top1.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert scores.top5 is None


def test_an_output_that_is_no_log_odds_agrees_by_halves() -> None:
    teacher = np.array([[31.0], [32.0], [33.0], [34.0]], np.float32)
    logits = np.full((4, 1), 33.5, np.float32)  # a network that has lost everything
    scores = mean_scores(score(logits, teacher, None))
    assert scores.agreement == 0.5
    assert scores.kl == pytest.approx(0.5 * (2.5**2 + 1.5**2 + 0.5**2 + 0.5**2) / 4)


def test_info_nce_is_over_whole_batches_only() -> None:
    rng = np.random.default_rng(1)
    logits, teacher = rng.standard_normal((2, CONTRASTIVE_BATCH + 50, 10)).astype(np.float32)
    whole = score(logits[:CONTRASTIVE_BATCH], teacher[:CONTRASTIVE_BATCH], None)
    assert score(logits, teacher, None).info_nce == whole.info_nce
    assert score(logits[:50], teacher[:50], None).info_nce < whole.info_nce  # fewer negatives


def test_without_labels_accuracies_are_none(case: Case) -> None:
    means = asdict(mean_scores(score(case.logits, case.teacher, None)))
    assert [name for name, value in means.items() if value is None] == ["top1", "top5"]
    assert list(means) == ["top1", "top5", "agreement", "kl", "info_nce"]
    init, final = (make_scores(seed, labels=False) for seed in (0, 1))
    delta = asdict(paired_delta(init, final, seed=0, num_resamples=10))
    assert [name for name, value in delta.items() if value is None] == ["top1", "top5"]


def test_the_bootstrap_is_that_of_a_plain_loop() -> None:
    init, final = make_scores(0), make_scores(1)
    delta = paired_delta(init, final, seed=3, num_resamples=200)
    for name in ("top1", "top5", "agreement", "kl"):
        difference = getattr(final, name) - getattr(init, name)
        generator = np.random.Generator(np.random.PCG64(3))
        means = [difference[generator.integers(0, 40, 40)].mean() for _ in range(200)]
        interval = getattr(delta, name)
        assert interval.mean == pytest.approx(difference.mean())
        assert interval.low == pytest.approx(np.quantile(means, 0.025))
        assert interval.high == pytest.approx(np.quantile(means, 0.975))


def test_the_bootstrap_is_paired() -> None:
    """A constant change is certain, however much the images differ."""
    init = make_scores(0)
    delta = paired_delta(init, init._replace(kl=init.kl - 0.25), seed=0, num_resamples=100).kl
    assert [delta.mean, delta.low, delta.high] == pytest.approx([-0.25] * 3)


def test_the_interval_has_the_width_of_the_normal_approximation() -> None:
    rng = np.random.default_rng(0)
    init = make_scores(0, 1000)
    final = init._replace(kl=init.kl + rng.normal(0.0, 2.0, 1000))
    delta = paired_delta(init, final, seed=0, num_resamples=2000).kl
    assert delta.low is not None
    assert delta.high is not None
    assert delta.high - delta.low == pytest.approx(2 * 1.96 * 2.0 / np.sqrt(1000), rel=0.1)


@pytest.mark.parametrize("labelled", [False, True])
def test_ranking_in_chunks_changes_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch, labelled: bool
) -> None:
    labels = case.labels if labelled else None
    whole = score(case.logits, case.teacher, labels)
    monkeypatch.setattr("evolq_jax.metrics.CHUNK_IMAGES", 7)
    for expected, values in zip(whole, score(case.logits, case.teacher, labels), strict=True):
        assert (values is None) == (expected is None)
        if expected is not None and values is not None:
            np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7)
