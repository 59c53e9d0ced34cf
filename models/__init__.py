"""What is trained: data, layers, networks, training, quantisation, and the lowering to an integer program."""
