"""Networks as pure functions, and the checkpoints from which they are read."""
