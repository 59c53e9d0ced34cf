"""FS-neurons: recipes, steps, figures and commands."""
