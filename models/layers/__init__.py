"""Layers that networks share, in floats and in exact integers."""

from bittrue.sim.extras import need

need("torch", "bittrue.models.layers")
