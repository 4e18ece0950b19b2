"""The keys of the run config that hold options, which Flower's flat run config can carry as text alone."""

OPTIONS = (
    "task-options",
    "dataset-options",
    "strategy-options",
    "optimizer-options",
    "client-speeds",
    "availability",
)
"""The keys that a scenario file and an override may give as tables."""
