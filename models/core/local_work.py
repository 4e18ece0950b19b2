"""What a strategy may say of one client's work in one round, in place of what the run config says of all."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from models.core.config import AtLeastOne, Config, TaskConfig, read


class LocalWork(Config):
    """The keys of a client's config that are honoured, each for that client in that round.

    The defaults stand for nothing: what is not said stays as the run config has it.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 1.0
    """Step size of all optimizers."""
    local_epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the client's examples; 0.5 is half of an epoch's batches, and at least one."""
    batch_size: AtLeastOne = 1
    """Examples a step."""


HONOURED = tuple(LocalWork.defaults())


def for_client(config: TaskConfig, said: Mapping[str, object]) -> tuple[TaskConfig, float]:
    """Return the config under which a client trains that is told this, and for how many epochs.

    Raises UserError for a value that does not fit.
    """
    if not any(key in said for key in HONOURED):
        return config, config.local_epochs
    work = read(LocalWork, said)  # type: ignore[arg-type]  # which is what it checks
    given = {name: getattr(work, name) for name in work.model_fields_set}
    epochs = given.pop("local_epochs", config.local_epochs)
    return config.model_copy(update=given), epochs
