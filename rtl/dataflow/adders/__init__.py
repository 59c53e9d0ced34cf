"""Constant matrices as shared adders: no multiplier, no memory, a vector every cycle."""
