"""Why a run ends before its last round."""


class RunFailedError(RuntimeError):
    """The run cannot go on; the message is the one line that the person at the terminal reads."""
