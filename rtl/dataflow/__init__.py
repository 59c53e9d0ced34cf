"""Pipelines of stages: timing, schedule, plan, top."""
