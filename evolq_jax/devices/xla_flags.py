"""What XLA is told before JAX starts. Nothing here imports JAX."""

import importlib.util
from collections.abc import MutableMapping

NVIDIA = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# Without it XLA tries many versions of every matrix product on the device while it compiles. On an H200 the
# first search of ViT-Tiny took 40 s without the trials, 202 s with them, and ran as fast afterwards.
ON_NVIDIA = "--xla_gpu_enable_triton_gemm=false"


def compile_quickly(environment: MutableMapping[str, str]) -> None:
    """Turns Triton's matrix products off where there is a plugin for NVIDIA's GPUs.

    A user who says anything about them in `XLA_FLAGS` is obeyed.

    Args:
      environment: the process's variables. `XLA_FLAGS` gets one flag more.
    """
    flags = environment.get("XLA_FLAGS", "")
    if ON_NVIDIA.split("=")[0] in flags or not any(map(importlib.util.find_spec, NVIDIA)):
        return
    environment["XLA_FLAGS"] = f"{flags} {ON_NVIDIA}".strip()
