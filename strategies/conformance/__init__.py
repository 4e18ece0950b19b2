"""The conformance kit: does a strategy do what every strategy must?

A plugin's author runs it in one test:

    import pytest
    from strategies import checks

    @pytest.mark.parametrize("check", checks(MyStrategy, step=0.5), ids=str)
    def test_it_conforms(check):
        check()
"""

from strategies.conformance.checks import Check as Check
from strategies.conformance.checks import checks as checks
from strategies.conformance.federation import SHAPES as SHAPES
from strategies.conformance.federation import Candidate as Candidate
from strategies.conformance.federation import ConformanceError as ConformanceError
