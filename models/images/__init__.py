"""Families that learn from pictures."""
