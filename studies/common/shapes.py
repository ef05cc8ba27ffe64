"""A short mark of the keys and shapes of a checkpoint, to compare ours with those recorded from timm."""

import hashlib
from collections.abc import Mapping


def digest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Ten hexadecimal digits that are equal for equal keys and shapes."""
    text = "\n".join(f"{key} {list(shapes[key])}" for key in sorted(shapes))
    return hashlib.sha256(text.encode()).hexdigest()[:10]
