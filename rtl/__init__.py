"""What is built: one Amaranth component per operation, the planner, the pipeline and its AXI4-Stream top."""

from bittrue.sim.extras import need

need("amaranth", "RTL")
