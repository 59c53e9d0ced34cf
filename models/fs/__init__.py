"""FS-neurons: neuron sets, their fit, networks of them in integers, conversion."""
