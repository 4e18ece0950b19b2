"""Which optimizers a strategy's theory holds for."""

from torch.optim import SGD, Optimizer


def check_sgd(strategy: str, optimizer: Optimizer, momentum: bool) -> None:
    """Raise ValueError for anything but SGD, and for momentum unless the strategy allows for it."""
    found = type(optimizer).__name__
    if isinstance(optimizer, SGD):
        value = optimizer.param_groups[0]["momentum"]
        if momentum or not value:
            return
        found = f"SGD with momentum {value}"
    allowed, fix = (
        ("SGD", "") if momentum else ("SGD without momentum", " and optimizer-options = 'momentum = 0'")
    )
    raise ValueError(
        f"{strategy} holds for {allowed} and not for {found}: set optimizer = 'sgd'{fix}, "
        "or any_optimizer = true in strategy-options"
    )
