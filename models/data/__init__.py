"""Data sets with frozen splits, and their file formats."""
