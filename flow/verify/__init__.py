"""Verification of every execution against the golden simulator."""
