"""Quantizers, one file each."""
