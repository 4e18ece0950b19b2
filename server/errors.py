"""Why a run ends before its last round."""


class RunFailedError(RuntimeError):
    """The run cannot go on; the message is the one line that the person at the terminal reads."""


class NodesFailedError(RunFailedError):
    """Machines or processes are at fault, and not what the model has become."""
