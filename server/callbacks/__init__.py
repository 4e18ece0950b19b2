"""What follows a run from round to round; own callbacks import from here. See docs/callbacks.md."""

from server.callbacks.callback import Callback
from server.run_schema import RoundRecord, RunResult

__all__ = ["Callback", "RoundRecord", "RunResult"]
