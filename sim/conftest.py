"""Hypothesis: the same examples in every run, and no deadline (a first call may compile)."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
