"""The optimisers of optax by name, with a schedule and clipping."""

import inspect
from collections.abc import Callable
from functools import cache

import jax
import optax

from evolq_jax.errors import UserError, suggestion
from evolq_jax.gradient.config import BaselineConfig


def list_optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """The optimisers of optax, by name, that need no argument but a learning rate."""
    found: dict[str, Callable[..., optax.GradientTransformation]] = {}
    for name in dir(optax):
        member = getattr(optax, name)
        if name.startswith(("_", "scale_by")) or not inspect.isfunction(member):
            continue
        parameters = inspect.signature(member).parameters
        needed = [p.name for p in parameters.values() if p.default is p.empty]
        if next(iter(parameters), None) == "learning_rate" and set(needed) <= {"learning_rate"}:
            found[name] = member
    return found


def make_schedule(config: BaselineConfig, num_steps: int) -> optax.Schedule:
    """The learning rate by step."""
    warmup = int(config.warmup * num_steps)
    rest = max(num_steps - warmup, 1)
    after = {
        "constant": optax.constant_schedule(config.learning_rate),
        "cosine": optax.cosine_decay_schedule(config.learning_rate, rest),
        "linear": optax.linear_schedule(config.learning_rate, 0.0, rest),
    }[config.schedule]
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, config.learning_rate, warmup), after], [warmup])


@cache  # programs are compiled for an object, so equal settings must share one
def make_optimizer(config: BaselineConfig, num_steps: int) -> optax.GradientTransformationExtraArgs:
    """The optimiser for so many steps. Equal settings give the same object.

    `lbfgs` finds its steps by a line search. Learning rate and clipping have no effect on it.

    Raises:
      UserError: the name is unknown, or the optimiser takes no schedule.
    """
    known = list_optimizers()
    if config.optimizer not in known:
        hint = suggestion(config.optimizer, known) or f" (known: {', '.join(known)})"
        raise UserError(f"unknown baseline.optimizer '{config.optimizer}'{hint}")
    factory = known[config.optimizer]
    if config.optimizer == "lbfgs":
        return optax.with_extra_args_support(factory())
    takes = inspect.signature(factory).parameters
    own = {"momentum": config.momentum, "key": 0}  # `noisy_sgd` has a key
    own = {name: value for name, value in own.items() if name in takes}
    try:
        optimizer = factory(make_schedule(config, num_steps), **own)
        jax.eval_shape(optimizer.init, {"scale": jax.ShapeDtypeStruct((1,), "float32")})
    except Exception as error:  # whatever an optimiser raises for settings that it does not take
        raise UserError(
            f"baseline.optimizer {config.optimizer} takes no schedule of the learning rate ({error}): "
            "choose another"
        ) from error
    clips = () if config.clip is None else (optax.clip_by_global_norm(config.clip),)
    return optax.with_extra_args_support(optax.chain(*clips, optimizer))
