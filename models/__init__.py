"""What is trained: data, layers, networks, training, quantisation, lowering."""

import os

# Read when torch is loaded: threads that wait give up their core. Spinning, two trainings side by side on two cores
# took several times as long as one after the other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
