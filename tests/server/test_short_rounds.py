"""What is said of a round to which too few clients have answered."""

import pytest

from server.cohort import NOT_NEEDED
from server.cohort_result import CohortResult
from server.config import ServerConfig
from server.errors import RunFailedError
from server.short_rounds import ShortRounds
from strategies.wire.reply import ClientFailure


def said(*failures: ClientFailure) -> str:
    with pytest.raises(RunFailedError) as caught:
        ShortRounds(ServerConfig()).leaves_out(3, CohortResult(failures=failures))
    return str(caught.value)


def test_nobody_was_asked() -> None:
    assert said() == "no client was asked in round 3"


def test_who_was_not_waited_for_is_no_reason() -> None:
    assert said(ClientFailure(1, NOT_NEEDED), ClientFailure(2, "ValueError: x")) == (
        "all 2 clients of round 3 failed; client 2: ValueError: x"
    )
