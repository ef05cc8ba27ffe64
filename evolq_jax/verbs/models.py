"""The verb `models`: lists the models of the registry."""

from evolq_jax.models.registry import ModelRow, list_models

__all__ = ["ModelRow", "list_models"]
