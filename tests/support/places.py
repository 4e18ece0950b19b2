"""Where things lie in a checkout."""

from pathlib import Path

SUPPORT = Path(__file__).parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
CONFIGS = ROOT / "simulations" / "configs"
CASES = SUPPORT / "cases"
"""Small data of clients on whose examples some metrics are undefined."""
CONLL = SUPPORT / "conll"
CASES = SUPPORT / "cases"
"""Small inputs that are awkward in one way each."""
