"""Networks as pure functions, and the checkpoints they are read from."""
