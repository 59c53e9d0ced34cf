"""What is trained: data, layers, networks, training, quantisation, lowering."""

import os

# Read when torch is loaded: threads that wait give up their core to the other processes of a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
