"""Families that learn by acting."""
