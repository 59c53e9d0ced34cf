"""Steps, recipes, what a system is and the registry that finds them: the staged flow, which knows no system by name."""
