"""The kernels of a network, made by a small network of their coordinates."""

from bittrue.sim.extras import need

need("torch", "bittrue.models.nern")
