"""What a tracker of experiments is: a callback that needs a package of its own."""

from typing import ClassVar

from server.callbacks.callback import Callback


class Tracker(Callback):
    """Writes a run's numbers and figures where another tool shows them. It costs no run."""

    package: ClassVar[str]
    """What has to be installed; it is imported as the run starts, and only where the tracker is asked for."""
