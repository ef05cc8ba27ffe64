"""A run's directory: files, checkpoints, locks, results."""
