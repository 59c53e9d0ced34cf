"""Training loops, checkpoints, precision, training on integers."""

from bittrue.sim.extras import need

need("torch", "bittrue.models.training")
