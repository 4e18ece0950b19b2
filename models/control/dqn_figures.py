"""What the held-out episodes of a Q-learner look like."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor


def draw_returns(returns: Tensor, physics: Tensor, names: Sequence[str]) -> Figure:
    """Draw the return (N,) of each episode: against each of its physics (N, P), or in ascending order."""
    figure = Figure(figsize=(max(6, 4 * len(names)), 4), layout="constrained")
    panels = figure.subplots(1, max(len(names), 1), sharey=True, squeeze=False)[0]
    if not names:
        panels[0].bar(range(1, len(returns) + 1), returns.sort().values)
        panels[0].set_xlabel("episode, by return")
    for panel, name, values in zip(panels, names, physics.T, strict=False):
        panel.scatter(values, returns)
        panel.set_xlabel(name)
    panels[0].axhline(float(returns.mean()), linestyle="--", label=f"mean {float(returns.mean()):.1f}")
    panels[0].set_ylabel("return")
    panels[0].legend()
    figure.suptitle("Return of greedy episodes, held-out starts")
    return figure


def draw_episode(observations: Tensor, values: Tensor) -> Figure:
    """Draw one episode: its observations (T, O), and the Q-value of each action (T, num_actions)."""
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(observations, label=[f"observation {place}" for place in range(observations.shape[1])])
    above.set_title(f"A greedy episode of {len(observations)} steps")
    below.plot(values, label=[f"Q of action {action}" for action in range(values.shape[1])])
    below.set_xlabel("step")
    for panel in (above, below):
        if len(panel.lines) <= 12:  # more would hide the picture
            panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
