"""Networks in INT8: quantisation after training."""

from bittrue.sim.extras import need

need("torch", "bittrue.models.int8")
