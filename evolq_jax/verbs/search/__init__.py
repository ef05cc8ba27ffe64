"""The verb `search`: a search over quantization scales, and what it would cost."""
