"""Scenarios, the `polyfed` command line, ways to run, reports and benchmarks."""
