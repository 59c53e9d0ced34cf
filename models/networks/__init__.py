"""The regular networks on images."""

from bittrue.sim.extras import need

need("torch", "bittrue.models.networks")
