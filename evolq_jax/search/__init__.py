"""Evolutionary search over quantization scales, block by block."""
