"""The ways to run a federation on this machine."""
