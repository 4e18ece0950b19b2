"""polyfed from Python, in scripts and notebooks: what the command line does, with results as DataFrames."""

from importlib.metadata import version

# Nothing but simulations, which sees to it that a folder of the user's called models/ is not taken for ours.
from simulations.api import (
    RunFailedError,
    RunTables,
    SweepTables,
    UserError,
    Workers,
    explain,
    load,
    run,
    sweep,
)

__all__ = [
    "RunFailedError",
    "RunTables",
    "SweepTables",
    "UserError",
    "Workers",
    "explain",
    "load",
    "run",
    "sweep",
]
__version__ = version("polyfed")
