"""Blocks that stages and controllers share."""
