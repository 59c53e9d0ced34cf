"""One stage an operation, found by the stem of its module."""
