"""JAX's cache of compiled programs on disk."""

from pathlib import Path


def cache_variables(folder: str | Path) -> dict[str, str]:
    """Environment of processes that keep every program in `folder`, however small."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
