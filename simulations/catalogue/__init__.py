"""What there is to run, and templates to write more."""
