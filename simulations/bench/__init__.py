"""Measurements: what a round costs beside others' rounds, and what a larger federation costs."""
