"""Gradient descent in the search's place: an optax optimiser moves the same scales at the same budget."""
