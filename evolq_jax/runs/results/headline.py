"""What a result says first: what quantization costs, in numbers and in words."""

from evolq_jax.metrics import Interval
from evolq_jax.runs.results.networks import EvaluationResult, Improvement

MB = 1e6


def headline(result: Improvement | EvaluationResult) -> list[str]:
    """The first lines of a result: its cost, the same in plain words, and a hint where there is one.

    Results of older versions have none.
    """
    if result.from_float is None or result.size is None:
        return []
    labelled = result.from_float.top1 is not None
    lost = result.from_float.top1 or result.from_float.agreement
    size, metric = result.size, "top-1" if labelled else "agreement"
    numbers = (
        f"final - float: {metric} {_points(lost)} points. Size: {size.quantized / MB:.2f} MB instead of "
        f"{size.float32 / MB:.2f} MB, {size.ratio:.1f} times smaller."
    )
    lines = [numbers, _in_words(result, lost, labelled=labelled)]
    hint = hint_of(result)
    return lines if hint is None else [*lines, hint]


def hint_of(result: Improvement | EvaluationResult) -> str | None:
    """The preset that measured results know to be better for this setting; None: there is none."""
    chain = result.setting.chain
    if not chain or {"gptq", "brecq"} & set(chain):
        return None
    return (
        "Hint: weights were neither corrected nor rounded here. Both together were better on every network "
        "measured (docs/results.md): --preset strong"
    )


def _in_words(result: Improvement | EvaluationResult, lost: Interval, *, labelled: bool) -> str:
    """One sentence for someone who reads no table."""
    bits = f"{result.setting.weight_bits}-bit weights and {result.setting.activation_bits}-bit activations"
    count, cost = f"{result.num_evaluation_images:,}", -100 * lost.mean
    if not labelled:
        return f"With {bits} the network changes its answer on {cost:.1f} of 100 images ({count} were tried)."
    if lost.low is None or lost.high is None:
        return f"Of 100 right answers, {bits} cost {cost:.1f} ({count} images were tried)."
    low, high = -100 * lost.high, -100 * lost.low
    if low > 0:
        return (
            f"Of 100 answers, {bits} make {cost:.1f} wrong that were right, likely {low:.1f} to {high:.1f}."
        )
    if high < 0:
        return f"Of 100 answers, {bits} make {-cost:.1f} right that were wrong ({count} images were tried)."
    return f"On {count} images {bits} cost nothing that shows, likely less than {high:.1f} answers in 100."


def _points(interval: Interval) -> str:
    """An interval in percentage points."""
    mean = f"{100 * interval.mean:+.1f}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
