"""Post-training quantization of vision transformers by evolutionary search over quantization scales."""

__version__ = "0.1.0"
