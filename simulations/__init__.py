"""Scenarios, the `polyfed` command line, ways to run, reports and benchmarks."""

import runpy
from pathlib import Path

# By its path, as a folder of the user's may answer to our names.
runpy.run_path(str(Path(__file__).parents[1] / "models" / "core" / "own_packages.py"))
