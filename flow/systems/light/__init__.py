"""Photonic networks: recipes, steps, figures and commands."""
