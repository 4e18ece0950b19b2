"""Environments whose random numbers begin with a small seed."""

from typing import Any

from gymnasium import Wrapper


class SmallSeeds(Wrapper[Any, Any, Any, Any]):
    """Gives an environment the lowest 32 bits of a seed: NumPy's old generator takes no more."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        return self.env.reset(seed=None if seed is None else seed % 2**32, options=options)
