"""Messages in a process that no Flower runtime has started."""

from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1


def let_messages_be_made() -> None:
    """Set what Flower fills into the metadata of every message that is made in this process."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = RUN_ID
