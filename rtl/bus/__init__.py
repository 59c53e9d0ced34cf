"""Ports of the outside: AXI4-Stream and its codes."""
