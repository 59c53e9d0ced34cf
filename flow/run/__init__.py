"""Runs of hardware: compiled RTL, cocotb, waveforms, probes and counters."""
