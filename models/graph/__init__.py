"""From a network of integer layers to a program."""
