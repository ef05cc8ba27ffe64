"""A quantized network as one object: called, differentiated, saved and loaded."""
