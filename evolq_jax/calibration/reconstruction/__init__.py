"""Block reconstruction: learns the rounding of weights and the steps of activations, block by block."""
