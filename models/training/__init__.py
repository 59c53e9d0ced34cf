"""Training loops, checkpoints, precision, training on integers."""
