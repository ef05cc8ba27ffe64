"""How far a quantized network is from the float one. Search, gradients and landscapes share this."""
