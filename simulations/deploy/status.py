"""Prints how a server or a node is."""

from collections.abc import Mapping

from rich.console import Console

from simulations.deploy import asked, certificates, given_clients
from simulations.deploy.folder import Folder
from simulations.terminal import Table


def show(folder: Folder, console: Console) -> bool:
    """Print the state of a folder's program, and return whether it is up."""

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    running = folder.remembered()
    if running is None:
        say(f"{folder.path}: what was started here is not known, as its file is damaged")
        return False
    up = asked.is_up(running, folder)
    state = "up" if up else "there, but it does not answer" if running.process else "not running"
    say(f"{running.program}: {state}; process {running.pid}, {running.address}")
    if running.superlink:
        say(f"SuperLink: {running.superlink}")
    for path in (folder.certificate, folder.ca):
        if path.is_file():
            certificate = certificates.read(path)
            left = certificates.days_left(certificate)
            say(f"{path}: {left} days left" if left >= 0 else f"{path}: expired")
            if 0 <= left <= certificates.SOON:
                say(certificates.check_dates(path, certificate))
    if up and not running.superlink:
        nodes, runs = asked.nodes(running, folder), asked.runs(running, folder)
        console.print(_nodes(nodes, given_clients.given(folder)) if nodes else "no node is registered")
        console.print(_runs(runs) if runs else "no run was started")
    return up


def _nodes(nodes: list[asked.Node], clients: Mapping[str, str]) -> Table:
    table = Table("node", "name", "status", "since (UTC)", *(["clients"] if clients else []))
    for node in nodes:
        may_host = [clients.get(node.key, "others")] if clients else []
        table.add_row(str(node.number), node.name, node.status, node.since, *may_host)
    return table


def _runs(runs: list[asked.Run]) -> Table:
    table = Table("run", "status", "since (UTC)")
    for run in runs:
        table.add_row(str(run.number), run.status, run.since)
    return table
