"""How far a quantized network is from the float one: what search, gradients and landscapes share."""
