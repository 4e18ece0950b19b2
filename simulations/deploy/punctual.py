"""Ends connections on which nothing is asked, of which anybody could open as many as a server has files."""

import asyncio

from uvicorn.protocols.http.auto import AutoHTTPProtocol

WAIT = 30.0
"""Seconds that a client has from its connection to the end of its first request's headers."""
FILES = 65536
"""Connections and files that a server may have open, where its user is allowed as many."""


class Punctual(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Uvicorn's way of reading requests, which waits for the first one without end."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin, and look after a while whether a request has come."""
        super().connection_made(transport)
        self.loop.call_later(WAIT, self._end_if_nothing_was_asked)

    def _end_if_nothing_was_asked(self) -> None:
        is_still_http = self.transport.get_protocol() is self
        if self.cycle is None and is_still_http and not self.transport.is_closing():
            self.transport.close()


def allow_many_files() -> None:
    """Let this process open more files than a user's programs usually may: each connection is one."""
    try:
        import resource
    except ImportError:  # Windows, on which Flower's servers do not run
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
