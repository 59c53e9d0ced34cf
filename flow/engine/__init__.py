"""Steps, recipes and the registry of systems: the staged flow, which knows no system by name."""
