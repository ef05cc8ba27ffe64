"""Generated configs and JSON: refused in one line, or taken; never anything else."""

import json
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evolq_jax.config.experiment import Experiment
from evolq_jax.errors import UserError
from evolq_jax.quant.qparams import blank_qparams
from evolq_jax.quant.spec import QuantSpec
from evolq_jax.runs.check_qparams import wrong_qparams
from evolq_jax.runs.config_json import from_json, to_json
from evolq_jax.typing import SiteInfo


def keys(config: Any, prefix: str = "") -> list[str]:
    found: list[str] = []
    for field in fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        found += keys(value, f"{name}.") if is_dataclass(value) else [name]
    return found


KEYS = keys(Experiment())
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**63, -(2**63), 1e308, 5e-324, -0.0])
TEXTS = st.text(max_size=300) | st.sampled_from(["*", "..", "/", "\x00", "\x1b[31m", "none", "ranges", "kl"])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner))


def with_value(name: str, value: Any) -> str:
    config = json.loads(to_json(Experiment()))
    *sections, last = name.split(".")
    inner = config
    for section in sections:
        inner = inner[section]
    inner[last] = value
    return json.dumps(config)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(KEYS), VALUES)
def test_any_value_in_any_field(name: str, value: Any) -> None:
    """What is taken is written and read as the same config again."""
    try:
        config = from_json(with_value(name, value), "config.json")
    except UserError:
        return
    assert from_json(to_json(config), "config.json") == config


@settings(max_examples=200, deadline=None)
@given(st.text() | VALUES.map(json.dumps))
def test_any_text(text: str) -> None:
    try:
        found = from_json(text, "config.json")
    except UserError as error:
        found = str(error)
    assert isinstance(found, Experiment) or found.startswith("config.json")


SPECS = (("weight", QuantSpec(per_channel=True)), ("head", QuantSpec()))
SITES = {"weight": SiteInfo((4, 3), None, True), "head": SiteInfo((1, 3), None, False)}
BLANK = blank_qparams(SPECS, 4, SITES)
NAMES = [f"{site}.{field}" for site in BLANK for field in ("scale", "zero_point", "bits")]
SHAPES = st.sampled_from([(1, 3), (1, 1), (3,), (), (0,), (1, 3, 1)])
DTYPES = st.sampled_from([np.float32, np.float64, np.int32, np.bool_, np.float16])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*NAMES, "x", ""]), st.tuples(SHAPES, DTYPES, st.floats(width=16))))
def test_any_arrays(drawn: dict[str, tuple[tuple[int, ...], Any, float]]) -> None:
    """What passes has the right keys, shapes and types, and positive scales."""
    with np.errstate(all="ignore"):
        arrays = {name: np.full(shape, value).astype(dtype) for name, (shape, dtype, value) in drawn.items()}
    if wrong_qparams(arrays, SPECS, BLANK) is not None:
        return
    assert {"weight.scale", "head.scale"} <= set(arrays) <= set(NAMES)
    for name, array in arrays.items():
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
        assert array.min() > 0 or not name.endswith("scale")
