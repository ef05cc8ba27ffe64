"""The settings of the link `clip`."""

from dataclasses import dataclass

from evolq_jax.errors import UserError


@dataclass(frozen=True)
class ClipConfig:
    """Settings of the initialiser `clip`.

    Attributes:
      sites: patterns of the sites whose ranges are tried, of those inside blocks; weights and activations.
      num_images: calibration images used, from the first on; the time taken grows with them.
      held_out: share of these that candidates are not compared on, but that must agree with a move; 0: none,
        and every move that is better on the others is made.
    """

    sites: tuple[str, ...] = ("*",)
    num_images: int = 64
    held_out: float = 0.5

    def __post_init__(self) -> None:
        """Rejects numbers that mean nothing."""
        if self.num_images < 1:
            raise UserError(f"calibration.clip.num_images must be at least 1, not {self.num_images}")
        if not 0 <= self.held_out < 1:
            raise UserError(f"calibration.clip.held_out must be from 0 to below 1, not {self.held_out}")
