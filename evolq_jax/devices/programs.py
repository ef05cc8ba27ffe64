"""The compiled programs that a process keeps from run to run."""

from pathlib import Path

import jax

MAPS, MAX_MAPS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def forget_programs(share: float = 0.5) -> bool:
    """Drops all compiled programs if the process has used more than a share of its memory maps.

    Each program maps pieces of memory. Linux allows a process 65,530 maps, which is some thousand programs.
    XLA does not survive one map too many: the process dies of a segmentation fault. A sweep of settings in
    one process can get there. Programs that are still needed are compiled again.

    Args:
      share: the share of the allowed maps that may be in use.

    Returns:
      Whether programs were dropped. Always False on systems other than Linux.
    """
    if not (MAPS.exists() and MAX_MAPS.exists()):
        return False
    if MAPS.read_bytes().count(b"\n") <= share * int(MAX_MAPS.read_text()):
        return False
    jax.clear_caches()
    return True
