"""Families that learn from series in time."""
