"""Block reconstruction: rounding of weights and steps of activations learned block by block."""
