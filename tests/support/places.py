"""Where things lie in a checkout."""

from pathlib import Path

SUPPORT = Path(__file__).parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
CONFIGS = ROOT / "simulations" / "configs"
CONLL = SUPPORT / "conll"
CASES = SUPPORT / "cases"
"""Small inputs that are awkward in one way each."""
