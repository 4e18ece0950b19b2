"""Datasets and how their rows are dealt to clients."""
