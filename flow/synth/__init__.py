"""Synthesis, place and route with open tools, one design on one target."""
