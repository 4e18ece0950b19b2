"""Families that learn from text."""
