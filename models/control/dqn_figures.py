"""What the held-out episodes of a Q-learner look like."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

FRAMES = 8
"""Frames of an episode that are drawn."""
MOST_NAMED = 12
"""Lines of a panel that its legend names; more would hide the picture."""


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
        if len(panel.lines) <= MOST_NAMED:
            panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_frames(frames: Tensor, values: Tensor) -> Figure:
    """Draw one episode: some of its frames (T, H, W, C), and the Q-value of each action (T, num_actions)."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    shown = [round(place * (len(frames) - 1) / (FRAMES - 1)) for place in range(FRAMES)]
    shown = sorted(set(shown))
    above = figure.add_gridspec(2, len(shown), height_ratios=(2, 3))
    for place, step in enumerate(shown):
        panel = figure.add_subplot(above[0, place])
        picture = _picture(frames[step])
        panel.imshow(picture, cmap="gray" if frames.shape[-1] == 1 else "turbo", interpolation="nearest")
        panel.set_title(f"step {step + 1}", fontsize="small")
        panel.set_axis_off()
    below = figure.add_subplot(above[1, :])
    below.plot(range(1, len(values) + 1), values, label=[f"action {at}" for at in range(values.shape[1])])
    below.set_xlabel("step")
    below.set_ylabel("Q")
    if values.shape[1] <= MOST_NAMED:
        below.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"A greedy episode, its first {len(frames)} steps")
    return figure


def _picture(frame: Tensor) -> Tensor:
    """(H, W, C) -> what is drawn: grey or colours as they are, else the number of the last plane set."""
    channels = frame.shape[-1]
    if channels in (1, 3):
        return frame.squeeze(-1)
    return (frame.bool() * torch.arange(1, channels + 1)).amax(-1)
