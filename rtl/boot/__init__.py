"""Booting: a generator whose results are written into what an accelerator holds, before it takes frames."""
