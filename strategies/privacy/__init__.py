"""Differential privacy: clipping, noise and their account."""
