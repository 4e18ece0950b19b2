"""What a node looks at before it starts: whether the server is who it should be, and what the clocks say.

Flower's own SuperNode says of a wrong certificate that the handshake failed.
"""

import http.client
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from models.core.errors import UserError
from simulations.deploy import addresses, certificates
from simulations.deploy.gate import HEALTH

WAIT = 10.0
"""Seconds that the server gets to answer."""
AHEAD, BEHIND = 5, 300
"""Seconds that a node's clock may be ahead of the server's, and behind it: Flower refuses others."""
REASONS = {
    9: "its certificate is not valid yet: compare the clocks of both machines",
    10: "its certificate has expired: have it renewed there (polyfed deploy cert --renew), and the server "
    "restarted",
}
"""OpenSSL's number of what is wrong with a certificate -> what is said of it."""


def check_server(server: str, ca: Path, say: Callable[[str], None]) -> None:
    """Raise UserError where the server is not the one of this CA, or the clocks are apart.

    A server that does not answer is no mistake: the node waits for it.
    """
    host, port = addresses.parse(server)
    if line := certificates.check_dates(ca, certificates.read(ca)):
        say(line)
    connection = http.client.HTTPSConnection(
        host, port, timeout=WAIT, context=ssl.create_default_context(cafile=str(ca))
    )
    try:
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        end = connection.sock.getpeercert() or {}
        connection.request("GET", HEALTH)
        date = connection.getresponse().getheader("Date")
    except ssl.SSLCertVerificationError as error:
        raise UserError(f"{server} is not trusted: {_reason(error, host, ca)}") from error
    except ssl.SSLError as error:
        raise UserError(
            f"{server} does not speak TLS ({error.reason or error}): give a SuperLink's address"
        ) from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:  # as while a machine starts
            say(f"{host} cannot be looked up yet ({error.strerror}); the node waits for it")
            return
        raise UserError(
            f"{host} is not known here ({error.strerror}): give the server's name or address"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        say(f"{server} does not answer yet ({error}); the node waits for it")
        return
    finally:
        connection.close()
    if line := _soon(str(end.get("notAfter", "")), server):
        say(line)
    check_clock(date, datetime.now(UTC))


def check_clock(date: str | None, now: datetime) -> None:
    """Raise UserError where this machine's clock is further from the server's than Flower allows."""
    if date is None:
        return
    ahead = (now - parsedate_to_datetime(date)).total_seconds()
    # The header has whole seconds, and took a moment to arrive.
    if ahead > AHEAD + 1 or ahead < -BEHIND:
        way = "ahead of" if ahead > 0 else "behind"
        raise UserError(
            f"this machine's clock is {abs(ahead):.0f} s {way} the server's, and requests are signed with "
            f"the time: at most {AHEAD} s ahead and {BEHIND} s behind are taken; set the clocks (NTP)"
        )


def _reason(error: ssl.SSLCertVerificationError, host: str, ca: Path) -> str:
    if error.verify_code in REASONS:
        return REASONS[error.verify_code]
    if "mismatch" in error.verify_message:
        return f"its certificate does not hold for {host} ({error.verify_message})"
    return (
        f"its certificate is not signed by the CA of {ca} ({error.verify_message}): take ca.crt from the "
        "server's folder, by a way that you trust"
    )


def _soon(end: str, server: str) -> str:
    left = (
        int(ssl.cert_time_to_seconds(end) - datetime.now(UTC).timestamp()) // 86400
        if end
        else certificates.SOON + 1
    )
    return f"the certificate of {server} expires in {left} days" if left <= certificates.SOON else ""
