"""From a network of integer layers to a program."""

from bittrue.sim.extras import need

need("torch", "bittrue.models.graph")
