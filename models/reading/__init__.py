"""Weights and what lies beside them: found, read, and matched with a network."""
