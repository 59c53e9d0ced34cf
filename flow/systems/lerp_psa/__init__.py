"""LERP-PSA: recipes and steps of the INT8 pipelines with learnable functions."""
