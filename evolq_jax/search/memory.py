"""Amounts of memory as people write them."""

import re

from evolq_jax.errors import UserError

_UNITS = {
    **{"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40},
}


def parse_bytes(text: str) -> int:
    """`12GiB`, `800 MB` or `1.5GiB` in bytes.

    Raises:
      UserError: it is no amount, or none above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?B)", text.strip().upper())
    amount = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if amount < 1:
        raise UserError(f"memory '{text}' is no amount: write it like 12GiB or 800MB")
    return amount
