"""Photonic networks: non-negative layers, arrays, training, conversion."""
