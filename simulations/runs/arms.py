"""Arms of an experiment: the same config under several seeds, with intervals instead of single numbers.

Arms are compared in pairs over the seeds that they share, which takes out what a seed does to all of them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from rich.text import Text

from models.core.config import Value
from server.run_schema import RoundRecord
from simulations.runs.compare import NOT_COMPARED, NOTHING, number, show
from simulations.runs.record import Run
from simulations.terminal import Table

CONFIDENCE = 0.95
BEST, BEHIND, NOT_BEHIND, NOT_TESTED = "best mean", "behind", "not behind", "not tested"
"""What is said of an arm beside the one with the best mean."""
CAPTION = (
    f"Means of the final model over the seeds, with {CONFIDENCE:.0%} intervals (Student). Arms are ordered "
    "and compared by validation examples where all have as many, else by test examples. Each is tested "
    "against the one with the best mean by a paired t-test over the seeds that both have: it is behind where "
    f"the {CONFIDENCE:.0%} interval of the difference lies above 0. Not behind means that these seeds do not "
    "tell the two apart, not that they are equal; with fewer than two common seeds nothing is tested. Every "
    "arm is tested by itself: of twenty that are equal, one will be called behind by chance."
)


@dataclass(frozen=True)
class Interval:
    """A mean and how far its 95 % interval reaches on either side."""

    mean: float
    reach: float
    """Infinite for a single value, which says nothing of the distribution."""

    def __str__(self) -> str:
        return number(self.mean) + (f" ± {number(self.reach)}" if math.isfinite(self.reach) else "")


@dataclass(frozen=True)
class Arm:
    """Runs whose configs differ in the seed alone."""

    config: Mapping[str, Value]
    """Without the seed, and without where the runs lie."""
    runs: Mapping[int, Run]
    """Seed -> run."""
    by_validation: bool = False
    """Whether it is compared by validation examples, and not by test examples."""

    def values(self, metric: str = "") -> dict[int, float]:
        """Return the final value by which arms are compared, by seed, of a metric; by default the run's own.

        Runs without a good end have none, nor have those in which it is not finite.
        """
        if not self.by_validation:
            return self.test_values(metric)
        return self._values(metric, {seed: run.compared for seed, run in self.runs.items()})

    def test_values(self, metric: str = "") -> dict[int, float]:
        """Return the final value on test examples, by seed, of a metric; by default the run's own."""
        return self._values(metric, {seed: run.final for seed, run in self.runs.items()})

    def _values(self, metric: str, found: Mapping[int, Mapping[str, float]]) -> dict[int, float]:
        done = {seed: metric or run.metric for seed, run in self.runs.items() if run.ended_with_metrics}
        return {seed: found[seed][name] for seed, name in done.items() if name in found[seed]}

    def rounds_to(self, target: float) -> dict[int, float]:
        """Return the first round that reaches the target, by seed; of those that do."""
        return {seed: float(line.server_round) for seed, line in self._first_to(target).items()}

    def simulated_seconds_to(self, target: float) -> dict[int, float]:
        """Return the simulated time of that round, by seed; of those whose time is simulated."""
        reached = self._first_to(target).items()
        return {
            seed: line.simulated_seconds or 0.0 for seed, line in reached if self.runs[seed].simulates_time
        }

    def _first_to(self, target: float) -> dict[int, RoundRecord]:
        found = {}
        for seed, run in self.runs.items():
            sign = 1 if maximizes(run) else -1
            for line in run.rounds:
                if run.metric in line.central and sign * line.central[run.metric] >= sign * target:
                    found[seed] = line
                    break
        return found


def arms_of(runs: Sequence[Run]) -> list[Arm]:
    """Group runs by their config but for the seed; of two runs with one seed the later is taken.

    They are compared by validation examples where all have the same number of them, else by test examples:
    numbers of different examples are not subtracted from one another.
    """
    groups: dict[str, tuple[dict[str, Value], dict[int, Run]]] = {}
    for run in runs:
        config = {key: value for key, value in run.config.items() if key not in (*NOT_COMPARED, "seed")}
        _, by_seed = groups.setdefault(json.dumps(config, sort_keys=True), (config, {}))
        by_seed[int(run.config["seed"])] = run
    numbers = {run.num_validation for run in runs}
    by_validation = len(numbers) == 1 and 0 not in numbers
    return [Arm(config, by_seed, by_validation) for config, by_seed in groups.values()]


def interval(values: Sequence[float]) -> Interval:
    """Return the mean with Student's interval."""
    if len(values) < 2:
        return Interval(values[0] if values else math.nan, math.inf)
    # Imported here, as it takes most of a second, which a report of one run has no use for.
    from scipy.stats import sem
    from scipy.stats import t as student

    # Not student.interval, which knows no interval of values that are all the same.
    return Interval(mean(values), float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * sem(values)))


def paired(one: Arm, other: Arm) -> Interval:
    """Return by how much `one` is better than `other`, over the seeds that both have."""
    first, second = one.values(), other.values()
    sign = 1 if maximizes(next(iter(one.runs.values()))) else -1
    return interval([sign * (first[seed] - second[seed]) for seed in sorted(first.keys() & second.keys())])


def verdict(best: Arm, arm: Arm) -> str:
    """Say whether an arm is behind the one with the best mean, by the paired t-test of the caption."""
    if arm is best:
        return BEST if arm.values() else NOT_TESTED
    difference = paired(best, arm)
    if not math.isfinite(difference.reach):
        return NOT_TESTED
    return BEHIND if difference.mean - difference.reach > 0 else NOT_BEHIND


def in_order(arms: Sequence[Arm]) -> list[Arm]:
    """Return the arms, the best mean first."""
    some = next(run for arm in arms for run in arm.runs.values())
    return sorted(arms, key=lambda arm: _order(arm, maximizes(some)))


def final_metrics(arms: Sequence[Arm]) -> list[str]:
    """Return the names of all metrics of the final models, the runs' own first."""
    runs = [run for arm in arms for run in arm.runs.values()]
    names = dict.fromkeys(name for run in runs if run.ended_with_metrics for name in run.final)
    return sorted(names, key=lambda name: name != runs[0].metric)


def rows(arms: Sequence[Arm], target: float | None = None, *, all_metrics: bool = False) -> list[list[str]]:
    """Return the table of arms as texts, headings first, then the best mean first.

    `target` adds the rounds until the metric reaches it, and the simulated time where there is such, and
    `all_metrics` the other metrics of the final model.
    """
    ordered = in_order(arms)
    some = next(iter(ordered[0].runs.values()))
    varied, arrow = varied_keys(ordered), "↑" if maximizes(some) else "↓"
    others = [name for name in final_metrics(ordered) if name != some.metric] if all_metrics else []
    chosen_apart = ordered[0].by_validation
    headings = [
        *varied,
        "seeds",
        f"final {some.metric} {arrow}{', validation' if chosen_apart else ''}",
        "difference to the best",
        "against the best",
        *([f"final {some.metric} {arrow}, test"] if chosen_apart else []),
    ]
    headings += [f"final {name}" for name in others]
    timed = any(run.simulates_time for arm in arms for run in arm.runs.values())
    if target is not None:
        headings += [f"rounds to {show(target)}"] + [f"simulated seconds to {show(target)}"] * timed
    table = [headings]
    for arm in ordered:
        values = [show(arm.config[key]) if key in arm.config else NOTHING for key in varied]
        shown = NOTHING if arm is ordered[0] else _shown(paired(ordered[0], arm))
        cells = [*values, _seeds(arm), _shown(interval(list(arm.values().values()))), shown]
        cells.append(verdict(ordered[0], arm))
        cells += [_shown(interval(list(arm.test_values().values())))] if chosen_apart else []
        cells += [_shown(interval(list(arm.test_values(name).values()))) for name in others]
        if target is not None:
            cells.append(_reached(arm, arm.rounds_to(target)))
            cells += [_time_to(arm, target)] * timed
        table.append(cells)
    return table


def tabulate(arms: Sequence[Arm], target: float | None = None, *, all_metrics: bool = False) -> Table:
    """Return the table for a terminal."""
    table = Table(title="Arms", title_justify="left", caption=CAPTION, caption_justify="left")
    headings, *lines = rows(arms, target, all_metrics=all_metrics)
    for heading in headings:
        table.add_column(Text(heading), overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def markdown(arms: Sequence[Arm], target: float | None = None) -> str:
    """Return the table for a README."""
    headings, *lines = rows(arms, target)
    table = [headings, ["---"] * len(headings), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in table) + f"\n{CAPTION}\n"


def have_seeds(runs: Sequence[Run]) -> bool:
    """Whether the runs are arms with several seeds, of one metric."""
    one_metric = len({run.metric for run in runs}) == 1
    return one_metric and any(len(arm.runs) > 1 for arm in arms_of(runs))


def maximizes(run: Run) -> bool:
    """Whether more of the run's metric is better."""
    return run.maximize is not False


def _order(arm: Arm, maximize: bool) -> float:
    values = list(arm.values().values())
    return math.inf if not values else -mean(values) if maximize else mean(values)


def varied_keys(arms: Sequence[Arm]) -> list[str]:
    """Return the config keys whose values differ between the arms."""
    keys = dict.fromkeys(key for arm in arms for key in arm.config)
    return [key for key in keys if len({json.dumps(arm.config.get(key)) for arm in arms}) > 1]


def _shown(found: Interval) -> str:
    return NOTHING if math.isnan(found.mean) else str(found)


def _seeds(arm: Arm) -> str:
    done, asked = len(arm.values()), len(arm.runs)
    return str(done) if done == asked else f"{done} of {asked}"


def _time_to(arm: Arm, target: float) -> str:
    if not any(run.simulates_time for run in arm.runs.values()):
        return NOTHING
    return _reached(arm, arm.simulated_seconds_to(target))


def _reached(arm: Arm, reached: Mapping[int, float]) -> str:
    missing = len(arm.runs) - len(reached)
    if not reached:
        return "not reached"
    return str(interval(list(reached.values()))) + (f" ({missing} did not)" if missing else "")
