import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.errors import UserError
from evolq_jax.quantized.files import DESCRIPTION, QPARAMS, load
from evolq_jax.quantized.network import QuantizedNetwork
from tests.tiny import Tiny


def test_what_is_saved_is_loaded(quantized: QuantizedNetwork, tiny: Tiny, tmp_path: Path) -> None:
    quantized.save(tmp_path / "tiny")
    again = load(tmp_path / "tiny", tiny.parts)
    assert again.specs == quantized.specs
    assert again.network.preprocessing == quantized.network.preprocessing
    assert jax.tree.all(jax.tree.map(jnp.array_equal, again.qparams, quantized.qparams))
    np.testing.assert_array_equal(again(tiny.pixels), quantized(tiny.pixels))


def test_parameters_that_calibration_changed_keep_the_float_ones_beside_them(
    quantized: QuantizedNetwork, tiny: Tiny, tmp_path: Path
) -> None:
    changed = replace(quantized, params=jax.tree.map(lambda leaf: leaf * 1.01, quantized.params))
    changed.save(tmp_path / "tiny")
    again = load(tmp_path / "tiny", tiny.parts)
    np.testing.assert_array_equal(again(tiny.pixels), changed(tiny.pixels))
    np.testing.assert_array_equal(again.network(tiny.pixels), quantized.network(tiny.pixels))


def test_a_network_outside_the_registry_wants_its_functions(
    quantized: QuantizedNetwork, tmp_path: Path
) -> None:
    quantized.save(tmp_path / "tiny")
    with pytest.raises(UserError, match="the network 'tiny', which is not in the registry"):
        load(tmp_path / "tiny")


def test_nothing_is_overwritten(quantized: QuantizedNetwork, tmp_path: Path) -> None:
    quantized.save(tmp_path / "tiny")
    with pytest.raises(UserError, match="exists already: name another folder"):
        quantized.save(tmp_path / "tiny")
    assert [file.name for file in tmp_path.iterdir()] == ["tiny"]
    quantized.save(tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        (DESCRIPTION, "{", "not readable as JSON"),
        (DESCRIPTION, "[]", "not a JSON object"),
        (DESCRIPTION, '{"format": 1}', "of another version"),
        (QPARAMS, "nothing", "missing or damaged"),
    ],
)
def test_a_damaged_folder_is_refused(
    quantized: QuantizedNetwork, tiny: Tiny, tmp_path: Path, name: str, content: str, wrong: str
) -> None:
    quantized.save(tmp_path / "tiny")
    (tmp_path / "tiny" / name).write_text(content)
    with pytest.raises(UserError, match=wrong):
        load(tmp_path / "tiny", tiny.parts)
    quantized.save(tmp_path / "again")
    assert load(tmp_path / "again", tiny.parts).specs == quantized.specs


def test_a_spec_of_a_wrong_kind_is_refused(quantized: QuantizedNetwork, tiny: Tiny, tmp_path: Path) -> None:
    quantized.save(tmp_path / "tiny")
    file = tmp_path / "tiny" / DESCRIPTION
    described = json.loads(file.read_text())
    described["specs"]["head/weight"]["signde"] = True
    file.write_text(json.dumps(described))
    with pytest.raises(UserError, match="is damaged"):
        load(tmp_path / "tiny", tiny.parts)


def test_no_folder_is_no_network(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no saved network"):
        load(tmp_path / "missing")
