"""A quantized network as integers: one definition, the files that hold it, and what runs it."""
