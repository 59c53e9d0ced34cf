"""The controller of a photonic array, and the array's digital twin."""
