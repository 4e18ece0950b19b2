"""Messages in a process that no Flower runtime has started."""

from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1


def let_messages_be_made() -> None:
    """Set what Flower fills into the metadata of every message that is made in this process."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = RUN_ID


def let_messages_be_made_anywhere() -> None:
    """Do so unless it is done: what a Flower runtime has set for its process stays."""
    try:
        _ = TaskIdentity.run_id
    except RuntimeError:  # Flower's way to say that it is not set
        let_messages_be_made()
