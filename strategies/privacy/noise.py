"""What the noise of a private run is drawn from.

Secret noise is drawn by NumPy's Philox, with a new key of 128 bits from the operating system for every
release, in float64. No seed gives it away, and no two runs share it. It is floating-point noise: the lowest
bits of a float that Gaussian noise was added to depend on what it was added to (Mironov 2012,
doi:10.1145/2382196.2382264), which the proofs about real numbers do not see.

Discrete noise has no such bits: OpenDP rounds to a grid and adds an integer number of its steps, drawn from
a discrete Gaussian by exact arithmetic (Canonne, Kamath and Steinke 2020, arXiv:2004.00010).
Rounding moves values apart by up to a step each; the deviation is raised by what that costs.

Repeatable noise follows from the run's seed. Who knows the seed takes it off again, so no epsilon holds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.rule import Arrays

SECRET, DISCRETE, REPEATABLE = "secret", "discrete", "repeatable"
KINDS = (SECRET, DISCRETE, REPEATABLE)
KEY_BYTES = 16
GRID = 2.0**-40
"""At most this part of the deviation is a step of the grid: so fine that rounding to it costs nothing."""

NO_EPSILON = 'noise = "repeatable": it follows from the run\'s seed, so no epsilon holds and none is told'
NOT_REPEATABLE = (
    "{} drawn from the operating system: the run does not repeat, nor does a resume go on exactly"
)


@dataclass(frozen=True)
class Noise:
    """A source of Gaussian noise."""

    kind: str
    """One of KINDS."""
    seeded: Callable[[], bytes]
    """Returns a new key that follows from the run's seed; asked by repeatable noise alone."""

    def add(self, values: Arrays, deviation: float, moved: float) -> dict[str, NDArray[np.float64]]:
        """Return values in float64 with noise of this deviation on each.

        `moved` is how far a client may move them all together, in the L2 norm.
        """
        exact = {name: np.asarray(value, np.float64) for name, value in values.items()}
        if not deviation:
            return exact
        if self.kind == DISCRETE:
            return _discrete(exact, deviation, moved)
        key = int.from_bytes(self.seeded(), "little") if self.kind == REPEATABLE else None
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        return {name: value + deviation * draw.standard_normal(value.shape) for name, value in exact.items()}

    def add_to(self, value: float, deviation: float, moved: float) -> float:
        """Return a number with noise."""
        return float(self.add({"": np.array(value)}, deviation, moved)[""])


def check_kind(kind: str) -> None:
    """Raise ValueError for noise of no known kind, and for noise whose library is not installed."""
    if kind not in KINDS:
        raise ValueError(f"noise must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == DISCRETE:
        try:
            import opendp  # noqa: F401
        except ImportError as error:
            raise ValueError(
                'noise = "discrete" needs OpenDP: pip install "polyfed[discrete-noise]", '
                'or take noise = "secret"'
            ) from error


def grid_exponent(deviation: float) -> int:
    """Return k, where the grid for noise of this deviation has steps of 2**k."""
    return math.floor(math.log2(deviation * GRID))


def raised(deviation: float, moved: float, num_values: int) -> float:
    """Return the deviation that values rounded to the grid need for the guarantee of those that are not.

    Rounding may bring each of two neighbours half a step further away, so `moved` grows by a step times
    the root of their number.
    """
    return deviation * (1 + math.sqrt(num_values) * 2.0 ** grid_exponent(deviation) / moved)


def gaussian_on_a_grid(deviation: float, moved: float, num_values: int) -> Any:
    """Return OpenDP's measurement, which takes and returns a list of so many floats."""
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_gaussian
    from opendp.metrics import l2_distance
    from opendp.mod import enable_features

    enable_features("contrib")
    domain = vector_domain(atom_domain(T=float, nan=False), size=num_values)
    scale = raised(deviation, moved, num_values)
    return make_gaussian(domain, l2_distance(T=float), scale=scale, k=grid_exponent(deviation))


def _discrete(
    values: dict[str, NDArray[np.float64]], deviation: float, moved: float
) -> dict[str, NDArray[np.float64]]:
    flat = np.concatenate([value.ravel() for value in values.values()])
    noised = np.asarray(gaussian_on_a_grid(deviation, moved, len(flat))(flat.tolist()), np.float64)
    parts = np.split(noised, np.cumsum([value.size for value in values.values()])[:-1])
    return {name: part.reshape(values[name].shape) for name, part in zip(values, parts, strict=True)}
