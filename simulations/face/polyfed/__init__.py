"""polyfed from Python, in scripts and notebooks: what the command line does, with results as DataFrames."""

from importlib.metadata import version

from models.core.errors import UserError
from server.errors import RunFailedError
from simulations.api import load, run, sweep
from simulations.tables import RunTables, SweepTables

__all__ = ["RunFailedError", "RunTables", "SweepTables", "UserError", "load", "run", "sweep"]
__version__ = version("polyfed")
