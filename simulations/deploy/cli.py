"""`polyfed deploy`: one command for each thing that a server or a node needs."""

import os
from pathlib import Path
from typing import Any

import click

from models.core.errors import UserError
from simulations.terminal import make_console

FILE = click.Path(path_type=Path)
SERVER = "Folder of the SuperLink."
NODE = "Folder of the node."
PORT = click.IntRange(1, 65535)
DAYS = click.IntRange(1, 36500)
FAILURE = 1


def say(line: str) -> None:
    """Print one line of what is done."""
    make_console().print(line, soft_wrap=True)


@click.group(no_args_is_help=True)
def deploy() -> None:
    """Run a SuperLink and SuperNodes on several machines, behind TLS and known keys.

    Wraps Flower's own programs, and prints what it runs.
    """


@deploy.command()
@click.argument("folder", type=FILE, help="A folder for ca.key and ca.crt; keep it away from the network.")
@click.option("--days", type=DAYS, default=3650, show_default=True, help="Days that the certificate holds.")
@click.option("--renew", is_flag=True, help="Make a new certificate for the key that is there.")
def ca(folder: Path, days: int, renew: bool) -> None:
    """Make a certificate authority, which signs the certificates of servers."""
    from simulations.deploy.authority import make_authority

    make_authority(folder, days, renew, say)


@deploy.command()
@click.argument("ca_folder", type=FILE, help="Folder that `polyfed deploy ca` has made.")
@click.argument("folder", type=FILE, help="Folder of the SuperLink; gets server.key, server.crt and ca.crt.")
@click.option(
    "--host",
    "hosts",
    required=True,
    metavar="NAME[,IP...]",
    help="Names and addresses by which nodes reach the server.",
)
@click.option("--days", type=DAYS, default=365, show_default=True, help="Days that the certificate holds.")
@click.option("--renew", is_flag=True, help="Make a new certificate for the key that is there.")
def cert(ca_folder: Path, folder: Path, hosts: str, days: int, renew: bool) -> None:
    """Make the certificate of a SuperLink, signed by the certificate authority."""
    from simulations.deploy.authority import make_certificate

    make_certificate(
        ca_folder, folder, [host.strip() for host in hosts.split(",") if host.strip()], days, renew, say
    )


@deploy.command("node-key")
@click.argument("folder", type=FILE, help=f"{NODE} Gets node.key, which never leaves it, and node.pub.")
@click.option(
    "--name", default="", help="Name of the node, at the end of node.pub; that of the folder unless given."
)
def node_key(folder: Path, name: str) -> None:
    """Make the key pair by which a SuperLink knows a node."""
    from simulations.deploy.authority import make_node_key

    make_node_key(folder, name, say)


@deploy.command()
@click.argument("folder", type=FILE, help=f"{SERVER} `polyfed deploy cert` has put its certificate there.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 is every one that this machine has.",
)
@click.option("--port", type=PORT, default=8000, show_default=True, help="Port to listen on.")
@click.option("--code", type=FILE, help='Folder of code of your own that runs name as "module:Class".')
@click.option(
    "--background", is_flag=True, help="Go on in the background, with the output in FOLDER/output.log."
)
def server(folder: Path, host: str, port: int, code: Path | None, background: bool) -> None:
    """Run a SuperLink: TLS, registered nodes alone, a database that outlives it.

    What starts runs on the same port answers its own user on its own machine alone.
    """
    from simulations.deploy import addresses, given_clients
    from simulations.deploy import server as of_server
    from simulations.deploy.folder import Folder

    made = Folder.made(folder)
    of_server.check_files(made, host, say)
    made.check_idle()
    addresses.check_free(host, port)
    if background:
        _in_background(made)
        return
    address = addresses.joined(addresses.reached(host), port)
    of_server.write_connection(made, address)
    given_clients.make(made, say)
    program = of_server.superlink(made, host, port, _code(code))
    say(f"$ {program.shown()}")
    say(f"runs start with: FLWR_HOME={made.home} flwr run . {of_server.CONNECTION} --stream")
    _remember(made, "flower-superlink", address)
    program.become()


@deploy.command()
@click.argument("folder", type=FILE, help=f"{NODE} Holds node.key and the server's ca.crt.")
@click.option("--superlink", required=True, metavar="HOST:PORT", help="Address of the SuperLink.")
@click.option("--partition-id", type=click.IntRange(0), required=True, help="Number of this node, from 0 on.")
@click.option("--num-partitions", type=click.IntRange(1), required=True, help="How many nodes there are.")
@click.option(
    "--data-path", default="", help="Folder of the node's own data; its share of the scenario's otherwise."
)
@click.option("--state-path", default="", help="Folder for what its clients keep; FOLDER/state unless given.")
@click.option(
    "--keep-state-days",
    type=click.IntRange(1),
    help="Days after which states of ended runs go; never unless given.",
)
@click.option(
    "--set",
    "-c",
    "more",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other key of its node config; may be repeated.",
)
@click.option(
    "--device", default="auto", show_default=True, help="What the node may compute on: auto, cpu or cuda:N."
)
@click.option("--code", type=FILE, help='Folder of code of your own that runs name as "module:Class".')
@click.option(
    "--port",
    type=PORT,
    default=9094,
    show_default=True,
    help="Port of the loopback for its own processes; another for each node of a machine.",
)
@click.option(
    "--refused-for",
    type=click.IntRange(0),
    default=120,
    show_default=True,
    help="Seconds to go on trying while the SuperLink refuses it, as for a minute after a kill.",
)
@click.option(
    "--background", is_flag=True, help="Go on in the background, with the output in FOLDER/output.log."
)
def node(
    folder: Path,
    superlink: str,
    port: int,
    refused_for: int,
    device: str,
    code: Path | None,
    background: bool,
    **config: Any,
) -> None:
    """Run a SuperNode, which trains on what lies on its machine."""
    from simulations.deploy import addresses, keys, preflight
    from simulations.deploy import node as of_node
    from simulations.deploy.folder import Folder

    made = Folder.made(folder)
    keys.read_key(made.node_key)
    told = of_node.node_config(made, **config)
    program = of_node.supernode(made, superlink, port, told, refused_for, device, _code(code))
    preflight.check_server(superlink, made.ca, say)
    made.check_idle()
    addresses.check_free("127.0.0.1", port)
    if background:
        _in_background(made)
        return
    say(f"$ {program.shown()}")
    _remember(made, "flower-supernode", addresses.joined("127.0.0.1", port), superlink)
    program.become()


@deploy.command()
@click.argument("folder", type=FILE, help=SERVER)
@click.argument(
    "public_keys", nargs=-1, required=True, type=FILE, help="The node.pub of each node to let in."
)
@click.option("--name", default="", help="Name of the node; the one at the end of its key unless given.")
@click.option(
    "--clients",
    default="",
    metavar="0-3,7",
    help="Clients that it may host, and no other node; those that nobody was given unless given.",
)
def register(folder: Path, public_keys: tuple[Path, ...], name: str, clients: str) -> None:
    """Let nodes in: tell the SuperLink their public keys.

    For a key that is registered already, --clients says anew which clients it may host.
    """
    from simulations.deploy import registry
    from simulations.deploy.folder import Folder

    if (name or clients) and len(public_keys) > 1:
        raise UserError("--name and --clients are for one node: register one key at a time")
    for public in public_keys:
        registry.register(Folder.there(folder), public, name, clients, say)


@deploy.command()
@click.argument("folder", type=FILE, help=SERVER)
@click.argument("node_id", type=int, help="Number of the node, as `polyfed deploy status` shows it.")
def unregister(folder: Path, node_id: int) -> None:
    """Let a node in no longer, as when its key was stolen."""
    from simulations.deploy import registry
    from simulations.deploy.folder import Folder

    registry.unregister(Folder.there(folder), node_id, say)


@deploy.command()
@click.argument("folder", type=FILE, help=SERVER)
@click.argument("scenario", required=False, help="As `polyfed run` takes it. Not needed with --resume.")
@click.option("--set", "-c", "override", multiple=True, metavar="KEY=VALUE",
              help="key=value over the scenario; may be repeated.")  # fmt: skip
@click.option("--run-dir", type=FILE, help="Folder of the run; ./runs/SCENARIO-TIME unless given.")
@click.option("--resume", type=FILE, help="Folder of a run to go on with.")
@click.option("--verbose", "-v", is_flag=True, help="Show all of the log, Flower's too, and tracebacks.")
@click.pass_obj
def run(
    of_main: Any,
    folder: Path,
    scenario: str | None,
    override: tuple[str, ...],
    run_dir: Path | None,
    resume: Path | None,
    verbose: bool,
) -> None:
    """Run a scenario on the nodes of a SuperLink, by the user who started that, on its machine.

    Ctrl-C ends the run.
    """
    from simulations.deploy.folder import Folder
    from simulations.deploy.runs import OnNodes, check_up, for_this_user_alone
    from simulations.start import prepare

    check_up(server := Folder.there(folder))
    with for_this_user_alone():
        asked = prepare(scenario, override, run_dir=run_dir, resume=resume, runtime="flower", verbose=verbose)
        of_main.verbose, of_main.start = verbose, OnNodes.of(asked, server)
        result = of_main.start.to_the_end(make_console())
    if result.status == "failed":
        raise click.exceptions.Exit(FAILURE)


@deploy.command()
@click.argument("folder", type=FILE, help="Folder of a SuperLink or of a node.")
def status(folder: Path) -> None:
    """Say whether a server or a node is up, its nodes and runs, and how long its certificates hold.

    Exit code 1 where it is not up.
    """
    from simulations.deploy.folder import Folder
    from simulations.deploy.status import show

    if not show(Folder.there(folder), make_console()):
        raise click.exceptions.Exit(FAILURE)


@deploy.command()
@click.argument("folder", type=FILE, help="Folder of a SuperLink or of a node.")
@click.option(
    "--wait", type=click.IntRange(1), default=30, show_default=True, help="Seconds that it gets to end."
)
def stop(folder: Path, wait: int) -> None:
    """End a server or a node by SIGTERM."""
    from simulations.deploy.folder import Folder
    from simulations.deploy.folder import stop as end

    say(end(Folder.there(folder), wait))


@deploy.command()
@click.argument("folder", type=FILE, help="A folder for the files.")
def templates(folder: Path) -> None:
    """Write files to start from: units of systemd, a Docker image and a Compose file."""
    from simulations.deploy.templates import write

    for path in write(folder):
        say(str(path))


def _code(folder: Path | None) -> str:
    if folder is not None and not folder.is_dir():
        raise UserError(f"--code {folder} is no folder")
    return str(folder.absolute()) if folder else ""


def _remember(folder: Any, program: str, address: str, superlink: str = "") -> None:
    import psutil

    from simulations.deploy.folder import Running

    folder.hold()
    began = psutil.Process().create_time()
    folder.remember(Running(program, os.getpid(), str(folder.path), address, superlink, began))


def _in_background(folder: Any) -> None:
    from simulations.deploy.asked import is_up
    from simulations.deploy.program import in_background

    say(f"process {in_background(folder, is_up)}; its output goes to {folder.log}")
