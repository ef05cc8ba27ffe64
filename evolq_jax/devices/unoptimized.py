"""Programs that compute so little that optimizing them takes longer than it saves."""

from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any

import jax
from jax.stages import Lowered

# Half the time of compiling. Other compilers than that for CPUs were not tried.
_ON_CPU = {"xla_backend_optimization_level": 0}


class Unoptimized:
    """`jax.jit` for small programs: XLA compiles them for CPUs without optimizing them.

    Other jitted functions cannot call them. The backend is asked for at the first call, since a module may be
    imported before processes are connected.
    """

    def __init__(self, function: Callable[..., Any], *, static_argnames: tuple[str, ...] = ()) -> None:
        self._function, self._static = function, static_argnames
        update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program."""
        jitted = self._program
        return jitted(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """As that of `jax.jit`."""
        return self._program.lower(*args, **kwargs)

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        """The shapes of what it returns."""
        return self._program.eval_shape(*args, **kwargs)

    @cached_property
    def _program(self) -> Any:
        options: Any = _ON_CPU if jax.default_backend() == "cpu" else None
        return jax.jit(self._function, static_argnames=self._static, compiler_options=options)
