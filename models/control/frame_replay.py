"""Transitions between pictures, of which each is kept once."""

import torch
from torch import Tensor

from models.control.episodes import Step
from models.control.frames import Frames
from models.control.priorities import Priorities
from models.control.replay import Replay
from models.task import Batch


class FrameReplay(Replay):
    """The newest `capacity` frames of some environments, and what was done at each.

    What an agent saw is a stack of frames, and what followed is the same stack without its oldest frame. So
    neither is kept, but every frame once, in a byte a pixel. Time for time each environment has a row, which
    is found from that before it: T = capacity // E times of E environments lie in a ring. The frame after
    the newest transitions lies at the time to come.
    """

    frame: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    acted: Tensor
    age: Tensor
    row: Tensor
    times: Tensor
    dropped: Tensor
    width: Tensor

    def __init__(self, capacity: int, frames: Frames, priorities: Priorities | None = None) -> None:
        super().__init__(capacity, priorities)
        self.frames = frames
        self.register_buffer("frame", torch.zeros(capacity, *frames.shape, dtype=torch.uint8))
        self.register_buffer("action", torch.zeros(capacity, dtype=torch.int16))
        self.register_buffer("reward", torch.zeros(capacity))
        self.register_buffer("terminated", torch.zeros(capacity, dtype=torch.bool))
        # Whether a transition leaves from the frame: none does from the last one of an episode.
        self.register_buffer("acted", torch.zeros(capacity, dtype=torch.bool))
        # Frames of the same episode before it, at most those that a stack shows.
        self.register_buffer("age", torch.zeros(capacity, dtype=torch.int16))
        # Slot of a transition -> the row of the frame that it leaves from.
        self.register_buffer("row", torch.zeros(capacity, dtype=torch.int32))
        # Times that are written, transitions whose frames have been written over, and E.
        for name in ("times", "dropped", "width"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return int(self.added - self.dropped)

    def begin(self, num_environments: int) -> None:
        """Leave the frame behind the last transitions where it is, and start episodes after it.

        Raises UserError where the environments' stacks do not fit in.
        """
        if int(self.times) and num_environments != int(self.width):
            raise ValueError(
                f"the client remembers {int(self.width)} environments, and acts in {num_environments}"
            )
        self.frames.check_capacity(self.capacity, num_environments)
        if int(self.times):
            self.acted[self._rows(int(self.times))] = False
            self._end_time()
        self.width.fill_(num_environments)

    def keep(self, step: Step) -> None:
        """Write a frame of each environment, and the one after it."""
        time = int(self.times)
        before, rows = self._rows(time - 1), self._rows(time)
        older = torch.clamp(self.age[before] + 1, max=self.frames.stack - 1)
        self.age[rows] = older * self.acted[before]
        for name in ("action", "reward", "terminated"):
            self.get_buffer(name)[rows] = step.transitions[name]
        self.acted[rows] = step.acted
        for name, places in (("observation", rows), ("following", self._rows(time + 1))):
            self.frame[places] = self.frames.stacked(step.transitions[name])[:, -1]
        leaving = rows.start + step.acted.nonzero().flatten()
        self.row[self._new_slots(len(leaving))] = leaving.to(self.row)
        self._end_time()

    def transitions(self, slots: Tensor) -> Batch:
        """Put the stacks together: (B, K, H, W, C) before and after each transition."""
        rows = self.row[slots].long()
        age = self.age[rows].long()
        # How far back the frames of a stack lie, the oldest first; an episode's first one stands for those
        # before it.
        back = torch.arange(self.frames.stack - 1, -1, -1, device=rows.device)
        return {
            "observation": self.frame[self._earlier(rows, torch.minimum(back, age[:, None]))],
            "action": self.action[rows],
            "reward": self.reward[rows],
            "following": self.frame[self._earlier(rows, torch.minimum(back, age[:, None] + 1) - 1)],
            "terminated": self.terminated[rows],
        }

    def _any(self, size: int, generator: torch.Generator) -> Tensor:
        return (int(self.dropped) + super()._any(size, generator)) % self.capacity

    @property
    def _times_kept(self) -> int:
        return self.capacity // int(self.width)

    def _rows(self, time: int) -> slice:
        """Return the rows of a time."""
        width = int(self.width)
        first = time % self._times_kept * width
        return slice(first, first + width)

    def _earlier(self, rows: Tensor, times: Tensor) -> Tensor:
        """Return the rows (B, K) of the same environments so many times before `rows` (B,)."""
        width = int(self.width)
        time = (rows[:, None] // width - times) % self._times_kept
        return time * width + rows[:, None] % width

    def _end_time(self) -> None:
        """Count a time, and drop the transitions of the one whose stacks would lack a frame from now on."""
        self.times += 1
        oldest = int(self.times) - self._times_kept + self.frames.stack - 1
        if oldest < 0:
            return
        gone = int(self.acted[self._rows(oldest)].sum())
        if self.priorities is not None:
            self.priorities.forget((int(self.dropped) + torch.arange(gone)) % self.capacity)
        self.dropped += gone
