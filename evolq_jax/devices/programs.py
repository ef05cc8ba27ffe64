"""The compiled programs that a process keeps from run to run."""

from pathlib import Path

import jax

MAPS, MAX_MAPS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def forget_programs(share: float = 0.5) -> bool:
    """Drops all compiled programs where they have used up a share of what the process may map.

    Each maps pieces of memory, of which Linux allows a process 65,530: some thousand programs. XLA does not
    survive one too many, and the process dies of a segmentation fault. A sweep of settings in one process
    gets there; programs still needed are compiled again.

    Args:
      share: of the maps allowed, more than which are too many.

    Returns:
      Whether there were too many; never but on Linux.
    """
    if not (MAPS.exists() and MAX_MAPS.exists()):
        return False
    if MAPS.read_bytes().count(b"\n") <= share * int(MAX_MAPS.read_text()):
        return False
    jax.clear_caches()
    return True
