from typing import Any

import numpy as np
import pytest

from evolq_jax.trees import flatten, stack, unflatten, unstack


def tree(start: int) -> dict[str, Any]:
    return {"a": {"b": np.arange(3) + start, "c": {"d": np.float32(start)}}, "e": np.ones((2, 2)) * start}


def test_flatten_names_leaves_in_order_and_unflatten_inverts_it() -> None:
    flat = flatten(tree(1))
    assert list(flat) == ["a/b", "a/c/d", "e"]
    back = unflatten(flat)
    assert list(back["a"]) == ["b", "c"]
    assert back["a"]["c"]["d"] == 1


def test_stack_adds_a_leading_axis_and_unstack_takes_it_away() -> None:
    stacked = stack([tree(0), tree(5)])
    assert stacked["a"]["b"].shape == (2, 3)
    assert stacked["a"]["c"]["d"].tolist() == [0, 5]
    second = unstack(stacked)[1]
    np.testing.assert_array_equal(second["a"]["b"], [5, 6, 7])
    assert len(unstack(stacked)) == 2


def test_stack_refuses_trees_that_differ() -> None:
    with pytest.raises(ValueError, match="a"):
        stack([tree(0), {"a": 1}])
