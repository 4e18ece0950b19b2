"""Strategies, their client halves, and how updates travel and add up."""
