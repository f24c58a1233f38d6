"""Trees of floats held in fewer bytes, and the way back: stochastic rounding, a correction of 8 bits, blocks of 256."""
