"""Amounts of memory: as people write them, and as the device has them."""

import os
import re

import jax

from evolq_jax.errors import UserError

DEVICE = "device"  # in an amount's place: what the device has
_UNITS = {
    **{"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40},
}


def check_amount(text: str) -> None:
    """Raises a UserError unless the text is `device` or an amount above zero."""
    if text != DEVICE:
        parse_bytes(text)


def limit_bytes(text: str) -> int:
    """An amount in bytes. `device` is all memory of this process's first device, in use or not.

    Raises:
      UserError: the text is no amount, or the device does not tell its memory.
    """
    return _device_bytes() if text == DEVICE else parse_bytes(text)


def usual_bytes() -> int | None:
    """What a run that names no amount fills: half of an accelerator's memory. None: nothing is filled.

    The other half is for what XLA needs beside the arrays. On a CPU more at once is no faster.
    """
    if jax.default_backend() == "cpu":
        return None
    try:
        return _device_bytes() // 2
    except UserError:  # it does not tell
        return None


def _device_bytes() -> int:
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        limit = (device.memory_stats() or {}).get("bytes_limit", 0)
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:  # Windows
        limit = 0
    if limit < 1:
        raise UserError(
            f"memory 'device': the {device.device_kind} does not tell its memory; write an amount, like 12GiB"
        )
    return limit


def parse_bytes(text: str) -> int:
    """`12GiB`, `800 MB` or `1.5GiB` in bytes.

    Raises:
      UserError: the text is no amount above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?B)", text.strip().upper())
    amount = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if amount < 1:
        raise UserError(f"memory '{text}' is no amount: write it like 12GiB or 800MB, or say device")
    return amount
