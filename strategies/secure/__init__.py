"""Secure aggregation: nodes mask what they reply, so that the server sees their sum alone."""
