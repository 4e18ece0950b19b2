"""A Flower app whose rounds do nothing: what a round on real nodes costs without any work."""

from pathlib import Path

FILES = {
    "pyproject.toml": """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "idle"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr>=1.41,<1.42"]

[tool.flwr.app]
publisher = "polyfed"

[tool.flwr.app.components]
serverapp = "idle_server:app"
clientapp = "idle_client:app"

[tool.flwr.app.config]
nodes = 3
rounds = 3
clock = ""
""",
    "idle_client.py": """
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    return Message(RecordDict(), reply_to=message)
""",
    # It looks for replies as often as polyfed does at most; Flower's own loop looks every three seconds.
    "idle_server.py": """
import time
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    while len(nodes := list(grid.get_node_ids())) < config["nodes"]:
        time.sleep(0.1)
    for number in range(1, config["rounds"] + 1):
        with Path(config["clock"]).open("a") as clock:
            clock.write(f"{time.time()!r}\\n")
        asked = [
            Message(RecordDict(), dst_node_id=node, message_type="train", group_id=str(number))
            for node in nodes
        ]
        pending = set(grid.push_messages(asked))
        while pending:
            time.sleep(0.05)
            pending -= {reply.metadata.reply_to_message_id for reply in grid.pull_messages(pending)}
""",
}
"""Name -> content."""


def write_idle_app(folder: Path) -> Path:
    """Write the app into a folder, and return that."""
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content.lstrip(), encoding="utf-8")
    return folder
