"""The precision of matrix products, under names that mean the same on every kind of device."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import jax

from evolq_jax.errors import UserError

Precision = Literal["float32", "tf32", "bfloat16"]

# What `jax.default_matmul_precision` calls them. Its "bfloat16" is TF32 on a GPU and float32 on a CPU, and
# its "tensorfloat32" three products of bfloat16 on a TPU. Convolutions know no algorithm by name: on a GPU
# the embedding of patches stays at TF32 under `bfloat16`.
_NAMES: dict[str, dict[Precision, str]] = {
    "cpu": {"float32": "float32"},
    "gpu": {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "BF16_BF16_F32"},
    "tpu": {"float32": "float32", "bfloat16": "bfloat16"},
}


def matmul_precision(precision: Precision = "float32") -> AbstractContextManager[Any]:
    """A context in which matrix products have this precision. Operands and results stay float32.

    Use it for float32 too: GPUs use TF32 by default, which is coarser than a search's steps.

    Raises:
      UserError: this machine's devices do not have this precision.
    """
    backend, names = jax.default_backend(), _names()
    if precision not in names:
        raise UserError(
            f"precision {precision} is not one that {backend.upper()}s have ({', '.join(names)}): leave "
            "--precision out for float32"
        )
    return jax.default_matmul_precision(names[precision])


def precisions() -> tuple[Precision, ...]:
    """Those that this machine's devices have."""
    return tuple(_names())


def _names() -> dict[Precision, str]:
    """JAX's names for the precisions of this machine's devices."""
    return _NAMES.get(jax.default_backend(), _NAMES["tpu"])
