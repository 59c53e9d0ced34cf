"""The systems that a recipe can name, one package each."""
