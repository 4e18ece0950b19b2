"""Which optimizers a strategy's theory holds for."""

from torch.optim import SGD, Optimizer


def check_sgd(strategy: str, optimizer: Optimizer, momentum: bool) -> None:
    """Raise ValueError for anything but SGD, without momentum or with plain (heavy-ball) momentum."""
    found = type(optimizer).__name__
    if isinstance(optimizer, SGD):
        group = optimizer.param_groups[0]
        given = {name: group[name] for name in ("momentum", "dampening", "nesterov") if group[name]}
        if not given or (momentum and given.keys() == {"momentum"}):
            return
        found = "SGD with " + ", ".join(f"{name} {value}" for name, value in given.items())
    allowed = "SGD, without dampening and nesterov," if momentum else "SGD without momentum"
    fix = "" if momentum else " and optimizer-options = 'momentum = 0'"
    raise ValueError(
        f"{strategy} holds for {allowed} and not for {found}: set optimizer = 'sgd'{fix}, "
        "or any_optimizer = true in strategy-options"
    )
