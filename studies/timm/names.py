"""Which of timm's names load, in docs/models.md: keys and shapes compared with those recorded from timm.

    python -m studies.timm.names > docs/models.md

It takes seconds and needs neither timm nor weights (`studies.timm.record` records).
"""

import json
import re
from collections import defaultdict
from dataclasses import replace

from evolq_jax.models.convert import file_shapes
from evolq_jax.models.registry import REGISTRY, Entry, param_shapes
from studies.common.tables import markdown
from studies.timm.shapes import RECORDED, digest

PREFIXES = re.compile(
    r"vit_relpos|deit3|deit|beitv2|beit|eva|flexivit|vit|swin|levit|resnext|wide_resnet|resnet|regnetx|mobilenetv2"
)
HEAD = """# Models

`evolq models` lists the models of the registry. timm's `.tag` of a checkpoint may follow a name. A
`config.json` beside the weights has priority over the registry's preprocessing.

This page is made by `python -m studies.timm.names`. It compares the keys and shapes that each model reads
with those of timm {version}, for the families that we have. `tests/models/test_variants.py` compares logits.

Some checkpoints are published without a classifier (DINOv2, SigLIP, CLIP). Add one to the file: `head.weight`
[classes, width] and `head.bias` [classes].

## Names that load ({count} of {total})
"""


def main() -> None:
    """Prints the page."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    version = recorded.pop("version")
    loading = [name for name in recorded if loads(name, recorded[name]["digest"])]
    print(HEAD.format(version=version, count=len(loading), total=len(recorded)))
    print(
        markdown(
            ("family", "names"), [(f"`{family}`", names) for family, names in by_family(loading).items()]
        )
    )
    print("\n## Names that are refused\n")
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(recorded) - set(loading)):
        reasons[recorded[name]["unusual"] or "not in the registry"].append(name)
    rows = [(reason, listed(names)) for reason, names in sorted(reasons.items())]
    print(markdown(("reason", "names"), rows))


def loads(name: str, recorded: str) -> bool:
    """Whether the registry has the name. Its keys and shapes must then be timm's.

    Raises:
        ValueError: they are not.
    """
    if name not in REGISTRY:
        return False
    if expected(REGISTRY[name]) != recorded:
        raise ValueError(f"{name}: the registry's keys or shapes are not timm's")
    return True


def expected(entry: Entry) -> str:
    """The mark of the keys and shapes of a file with a thousand classes."""
    config = replace(entry.config, num_classes=1000)
    return digest(file_shapes(entry.family.layouts[0], config, param_shapes(entry.family, config)))


def by_family(names: list[str]) -> dict[str, str]:
    """The names of each family, by the beginning of the names."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        found[prefix.group() if (prefix := PREFIXES.match(name)) else name].append(name)
    return {family: listed(members) for family, members in sorted(found.items())}


def listed(names: list[str]) -> str:
    """Names in code style, each whole, so that a search in the page finds it."""
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    main()
