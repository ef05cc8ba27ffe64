"""Where a search stands, for people who watch."""

import math

from evolq_jax.pipeline.watcher import Standing
from evolq_jax.search.problem import Problem
from evolq_jax.search.state import Generation, State, end_of, spent


def standing_of(problem: Problem, state: State, *, planned: float, now: Generation | None) -> Standing:
    """Where a search stands after a generation `now`; None: at its end.

    Args:
      problem: what is searched.
      state: after the last visit that ended.
      planned: candidate-images that the search spends, about.
      now: what the visit has come to. Its candidates are not kept yet.
    """
    begun = end_of(problem, state) if state.visits else None
    held_out = float(state.held_out_fitness)
    place = "search" if now is None else f"search: pass {now.pass_number + 1} {now.segment} {now.block}"
    done = spent(problem, state) if now is None else min(now.candidate_images, planned)
    return Standing(
        place=place,
        done=done,
        total=done if now is None else planned,
        fitness=problem.config.fitness_name,
        init=begun and begun.start_fitness,
        best=begun and begun.fitness,
        held_out=held_out if math.isfinite(held_out) else None,
        moves=begun and f"{begun.kept} of {begun.visits} moves kept",
    )
