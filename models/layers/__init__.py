"""Layers that networks share, in floats and in exact integers."""
