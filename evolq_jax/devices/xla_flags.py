"""What XLA is told before JAX starts. Nothing here imports JAX."""

import importlib.util
from collections.abc import MutableMapping

NVIDIA = ("jax_cuda13_plugin", "jax_cuda12_plugin")
OTHERS = ("jax_rocm7_plugin", "jax_rocm60_plugin", "libtpu")
# Without it XLA tries many versions of every matrix product on the device while it compiles. On an H200 the
# first search of ViT-Tiny took 40 s without the trials, 202 s with them, and ran as fast afterwards.
ON_NVIDIA = "--xla_gpu_enable_triton_gemm=false"
# XLA's most expensive optimizations for CPUs gain nothing here: large products are calls of a library, and
# loops over arrays are vectorized at this level too (docs/performance.md has both measured).
ON_CPUS = "--xla_backend_optimization_level=1"


def compile_quickly(environment: MutableMapping[str, str]) -> None:
    """Leaves out what takes long to compile and gains nothing, on NVIDIA's GPUs and on CPUs alone.

    A user who says anything about it in `XLA_FLAGS` is obeyed.

    Args:
      environment: the process's variables. `XLA_FLAGS` gets one flag more.
    """
    if any(map(importlib.util.find_spec, NVIDIA)):
        flag = ON_NVIDIA
    elif any(map(importlib.util.find_spec, OTHERS)):
        return
    else:
        flag = ON_CPUS
    flags = environment.get("XLA_FLAGS", "")
    if flag.split("=")[0] not in flags:
        environment["XLA_FLAGS"] = f"{flags} {flag}".strip()
