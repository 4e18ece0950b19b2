"""The SuperLink: its certificate is looked at, its port, its connection is written down, then it starts."""

from collections.abc import Callable

import tomli_w

from models.core.errors import UserError
from models.core.user_code import FOLDER
from server.node_clients import FILE
from simulations.deploy import addresses, certificates, keys
from simulations.deploy.folder import Folder
from simulations.deploy.program import Program, flower

NAME = "superlink"
CONNECTION = "polyfed"
"""Name of the connection in Flower's configuration: `flwr run . polyfed`."""


def check_files(folder: Folder, host: str, say: Callable[[str], None]) -> None:
    """Raise UserError where the server's certificate, key and CA do not go together, or not with `host`."""
    if not folder.certificate.is_file():
        raise UserError(
            f"{folder.certificate} is not there: polyfed deploy cert CA {folder.path} --host NAME makes it"
        )
    ca, certificate = certificates.read(folder.ca), certificates.read(folder.certificate)
    certificates.check_pair(certificate, keys.read_key(folder.key), folder.certificate)
    certificates.check_issuer(certificate, ca, folder.certificate, folder.ca)
    for path, each in ((folder.certificate, certificate), (folder.ca, ca)):
        if line := certificates.check_dates(path, each):
            say(line)
    certificates.check_host(certificate, addresses.reached(host), folder.certificate)


def superlink(folder: Folder, host: str, port: int, code: str) -> Program:
    """Return the SuperLink's command: TLS, known nodes alone, and a database that outlives it."""
    arguments = ["--host", host, "--port", str(port)]
    arguments += ["--ssl-ca-certfile", str(folder.ca), "--ssl-certfile", str(folder.certificate)]
    arguments += [
        "--ssl-keyfile",
        str(folder.key),
        "--enable-supernode-auth",
        "--database",
        str(folder.database),
    ]
    arguments += ["--disable-runtime-dependency-installation"]
    variables = {FILE: str(folder.node_clients), **({FOLDER: code} if code else {})}
    return flower("flower-superlink", arguments, folder, **variables)


def write_connection(folder: Folder, address: str) -> None:
    """Write into the folder's FLWR_HOME how `flwr` reaches the SuperLink on this machine."""
    connection = {"address": address, "root-certificates": str(folder.ca)}
    config = {"superlink": {"default": CONNECTION, CONNECTION: connection}}
    (folder.home / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
