"""A quantized network as one object. You can call, differentiate, search, save and load it."""
