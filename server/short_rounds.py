"""Rounds to which too few clients have answered."""

from logging import WARNING

from models.core.log import log
from server.cohort import NOT_NEEDED
from server.cohort_result import CohortResult
from server.config import ServerConfig
from server.errors import RunFailedError

MOST = 3
"""Rounds in a row that may be left out."""
AGAIN = (
    "; its sum was opened before the run was resumed, and no other one may be: resume when the nodes of that "
    'sum are there, or leave the round out (short-rounds = "skip")'
)


class ShortRounds:
    """Decides what becomes of a round, by `min-replies` and `short-rounds`."""

    def __init__(self, config: ServerConfig) -> None:
        self.least, self.skip = config.min_replies, config.short_rounds == "skip"
        self.twice = bool(config.buffer_size)
        """Whether a client may answer twice in a round, each time with an update of its own."""
        self.in_a_row = 0

    def leaves_out(self, server_round: int, cohort: CohortResult) -> bool:
        """Return whether the model is to stay as it was; raise RunFailedError where the run is to end."""
        answered = len(cohort.clients if self.twice else set(cohort.clients))
        if answered >= self.least:
            self.in_a_row = 0
            return False
        said = self._said(server_round, cohort, answered)
        if not self.skip:
            raise RunFailedError(said + (AGAIN if cohort.again else ""))
        # Of a round that is done again no other sum can be had: that says nothing of the rounds to come.
        self.in_a_row += not cohort.again
        if self.in_a_row == MOST:
            raise RunFailedError(f"{MOST} rounds in a row were too short: {said}")
        log(WARNING, "Round %d leaves the model as it was: %s", server_round, said)
        return True

    def _said(self, server_round: int, cohort: CohortResult, answered: int) -> str:
        # That it was not waited for is no reason why others have not answered: it is named where all say so.
        failures = sorted(cohort.failures, key=lambda each: each.error == NOT_NEEDED)
        first = next((f"client {each.client}: {each.error}" for each in failures), "no client was asked")
        if self.least == 1 and not failures:
            return f"no client was asked in round {server_round}"
        if self.least == 1:
            return f"all {len(cohort.failures)} clients of round {server_round} failed; {first}"
        return (
            f"{answered} clients answered in round {server_round}, and min-replies is {self.least}; {first}"
        )
