"""The settings of block reconstruction."""

from dataclasses import dataclass

from evolq_jax.errors import UserError


@dataclass(frozen=True)
class BrecqConfig:
    """Settings of the initialiser `brecq`.

    Attributes:
      steps: optimiser steps for each block; the paper's 20,000 are for GPUs.
      batch_size: images of one step, drawn anew for each.
      rounding_rate: Adam's learning rate for the rounding of weights.
      step_rate: Adam's learning rate for the logarithm of activation steps, decayed to zero along a cosine.
        0: the steps stay.
      regulariser: weight of the pull towards 0 or 1, relative to the error with which the block starts.
      warmup: share of the steps without that pull.
      power_start: first exponent of the pull. It is high, so that only nearly decided weights feel the pull.
      power_end: last exponent of the pull.
      fisher: weight errors of a block's output by the diagonal of the logits' Fisher information.
      drop: probability that an activation is not quantized in a step (QDrop); 0: all are.
    """

    steps: int = 300
    batch_size: int = 12
    rounding_rate: float = 1e-2
    step_rate: float = 1e-3
    regulariser: float = 10.0
    warmup: float = 0.2
    power_start: float = 20.0
    power_end: float = 2.0
    fisher: bool = True
    drop: float = 0.5

    def __post_init__(self) -> None:
        """Rejects numbers that mean nothing."""
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"calibration.brecq.{name} must be at least 1, not {getattr(self, name)}")
        for name in ("rounding_rate", "power_start", "power_end"):
            if not getattr(self, name) > 0:
                raise UserError(f"calibration.brecq.{name} must be positive, not {getattr(self, name)}")
        for name in ("step_rate", "regulariser"):
            if not getattr(self, name) >= 0:
                raise UserError(f"calibration.brecq.{name} must not be negative, not {getattr(self, name)}")
        for name in ("warmup", "drop"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"calibration.brecq.{name} must be from 0 to below 1, not {getattr(self, name)}"
                )
