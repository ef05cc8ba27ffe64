"""How the programs of tests are compiled: quickly, and once for all processes."""

from importlib.metadata import version
from pathlib import Path

# XLA's older emitters, and one thread for each program, take half the time. JAX 0.11 has no older emitters.
# What users get, with all optimizations, is what the commands of the README and the benchmarks run.
_EMITTERS = "--xla_cpu_use_fusion_emitters=false " if version("jax").startswith("0.10.") else ""
QUICKLY = f"{_EMITTERS}--xla_cpu_parallel_codegen_split_count=1"


def cache_variables(folder: str | Path) -> dict[str, str]:
    """Environment of processes that keep every compiled program in `folder`, however small."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
