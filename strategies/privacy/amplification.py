"""Whether it counts that a client is not asked in every round: privacy amplification by sampling.

Its proof takes cohorts to be drawn evenly and unknown to all, and a client's reply to depend on its data and
on what was released before. Where clients remember, it depends on who was drawn in earlier rounds, too: one
round's secret leaks in another. No proof that is known covers this, so epsilon is counted as if everybody
were asked in every round, which needs none.
"""

from importlib import import_module

from flwr.serverapp.strategy import Strategy

from strategies.declaration import WEIGHTED_MEANS, declaration_of


def why_not_amplified(strategy: Strategy) -> str:
    """Return why sampling by this strategy gains nothing, "" where it does."""
    name = type(strategy).__name__
    for rule in declaration_of(strategy).local_rules:
        if kept := _kept(rule):
            return f"clients of {name} remember earlier rounds ({', '.join(kept)})"
    while wrapped := getattr(strategy, "strategy", None):
        strategy = wrapped
    if type(strategy) not in WEIGHTED_MEANS and not type(strategy).__module__.startswith("strategies."):
        return f"{type(strategy).__name__} may choose its clients otherwise than evenly by chance"
    return ""


def _kept(rule: str) -> tuple[str, ...]:
    module, name = rule.split(":")
    kept: tuple[str, ...] = getattr(import_module(module), name).kept
    return kept
