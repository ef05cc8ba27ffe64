"""What pictures call losses."""

import re

LOSSES = {
    "cross_entropy": "cross-entropy",
    "error_rate": "error rate",
    "info_nce": "infoNCE",
    "mse": "MSE",
    "cosine": "cosine distance",
    "kl": "KL to float",
    "features": "error of the features",
    "centred_cosine": "centred cosine distance",
    "top_k_kl": "KL over the top classes",
}
UNITS = {"share of images": "share"}  # shorter
TEMPERATURE = re.compile(r"(.+)_t([\d.e+-]+)")  # as in `info_nce_t0.3`


def loss_title(column: str) -> str:
    """`info_nce_t3` -> `infoNCE, T = 3`. A loss of the user's own keeps its name."""
    found = TEMPERATURE.fullmatch(column)
    name, temperature = found.groups() if found else (column, "")
    title = LOSSES.get(name, name.replace("_", " "))
    return f"{title}, T = {temperature}" if temperature else title


def loss_label(column: str, unit: str) -> str:
    """The title with its unit; `1` is none."""
    return loss_title(column) + ("" if unit == "1" else f" ({UNITS.get(unit, unit)})")
