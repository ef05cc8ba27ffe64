"""The shipped configs against the networks they name, without weights."""

from pathlib import Path

import jax
import pytest

from evolq_jax.config.load import load_config
from evolq_jax.models.registry import get_entry, param_shapes
from evolq_jax.network.sites import is_stacked, list_sites
from evolq_jax.quant.scheme import resolve
from evolq_jax.quant.spec import select
from evolq_jax.trees import unflatten

FOLDER = Path(__file__).resolve().parents[2] / "configs"
OTHERS = ("train_", "compare_")  # config files of other kinds
CONFIGS = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith(OTHERS))
VISITS = {  # in a pass: as the config's docstring says
    "deit_tiny_w4a8": 12,
    "swin_tiny_w4a8": 6,
    "swin_small_w4a8": 12,
    "swin_base_w4a8": 12,
    "levit_128s_w4a8": 11,
    "levit_256_w4a8": 14,
    "levit_384_w4a8": 14,
    "resnet18_w4a8": 8,
    "resnet50_w4a8": 16,
    "regnetx_032_w4a8": 25,
}


@pytest.mark.parametrize("stem", CONFIGS)
def test_what_a_config_searches_is_there_and_quantized(stem: str) -> None:
    config = load_config(FOLDER / f"{stem}.py")
    entry = get_entry(config.model.name)
    shapes = param_shapes(entry.family, entry.config)
    params = unflatten({leaf: jax.ShapeDtypeStruct(shape, "float32") for leaf, shape in shapes.items()})
    size, parts = entry.preprocessing.size, entry.make()
    sites = list_sites(parts, params, (size, size, len(entry.preprocessing.mean)))
    specs = dict(resolve(config.quant, sites).specs)
    searched = [site for site in select(config.search.sites, specs) if is_stacked(parts, site)]
    visited = [s for s in parts.segments if any(site.startswith(s.name + "/") for site in searched)]
    assert visited == list(parts.segments)
    assert sum(segment.length for segment in visited) == VISITS.get(
        stem, sum(s.length for s in parts.segments)
    )
    if config.search.algorithm == "EvolQ":
        assert all(sites[site].is_weight for site in searched)
    else:
        assert set(searched) == {site for site in specs if is_stacked(parts, site)}
