"""The TLS port: who speaks TLS gets through to the server, and who does not is told so.

aiohttp and asyncio drop a connection whose handshake fails without a word, on both sides: a worker with an `http://`
endpoint or without our authority would look as if the network were broken. So connections are accepted here, their
first byte is looked at, and a handshake that fails is named with its peer. Used by `gateway.server`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from tickwheel_operator.gateway.refusals import Reason, Refusals

__all__ = ["TlsListener"]

_log = logging.getLogger(__name__)
_HANDSHAKE = 0x16
"""The first byte of TLS; of an HTTP request it is a letter."""
_BACKLOG = 1024
_PAUSE_S = 0.5
_DETAIL = (
    "plain HTTP at the port of TLS: set TICKWHEEL_ENDPOINT (or the caller's URL) to https://, and TICKWHEEL_CA_FILE to "
    "the gateway's authority"
)
_BODY = (
    b'{"type":"urn:tickwheel:problem:bad-request","title":"The request is not valid","status":400,"detail":"%s"}'
    % _DETAIL.encode()
)
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
_MISTRUST = "the caller does not trust the gateway's certificate (%s): give it the ca.crt of ConfigMap tickwheel-ca"
_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": _MISTRUST % "unknown authority",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _MISTRUST % "not acceptable",
    "SSLV3_ALERT_BAD_CERTIFICATE": _MISTRUST % "bad certificate, as for a name that is not in it",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _MISTRUST % "expired; look at its clock too",
    "UNSUPPORTED_PROTOCOL": "the caller's TLS is older than 1.2",
}
"""What a caller says that gives up, by OpenSSL's name for it. Most say why; Python's asyncio hangs up instead."""


class TlsListener:
    """Listens once `start` is called, until `stop`."""

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        refusals: Refusals,
        *,
        timeout_s: float = 10.0,
    ) -> None:
        """`factory` makes the protocol of a connection; the handshake may take `timeout_s`."""
        self._factory = factory
        self._context = context
        self._refusals = refusals
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._beginning: set[asyncio.Task[None]] = set()

    def start(self, host: str, port: int) -> int:
        """Listen; the port. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        self._socket.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._socket), name="gateway-accept")
        return int(self._socket.getsockname()[1])

    async def stop(self) -> None:
        """Take no more connections; those that have begun are the server's."""
        tasks = [*self._beginning, *([self._accepting] if self._accepting is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
            except OSError as error:
                # Out of file descriptors, or the peer has gone already: neither may end the gateway.
                _log.warning("the gateway cannot accept a connection: %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            task = asyncio.create_task(self._begin(connection, address[0]), name="gateway-handshake")
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket, peer: str) -> None:
        given = False
        try:
            async with asyncio.timeout(self._timeout_s):
                first = await _first_byte(connection)
                if first == _HANDSHAKE:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    given = True
                    await asyncio.get_running_loop().connect_accepted_socket(
                        self._factory, connection, ssl=self._context
                    )
                elif first is not None:
                    self._refusals.note(Reason.PLAIN_HTTP, _DETAIL, peer=peer, what="a connection")
                    await _answer(connection)
        except (OSError, TimeoutError) as error:
            if given:
                self._refusals.note(Reason.HANDSHAKE, _explain(error), peer=peer, what="a connection")
            else:
                # Health checks of load balancers connect and leave; a scan of ports says nothing at all.
                _log.debug("%s did not begin to speak: %r", peer, error)
        finally:
            if not given:
                connection.close()


async def _first_byte(connection: socket.socket) -> int | None:
    """What the caller says first, without taking it; None: it hung up."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            seen = connection.recv(1, socket.MSG_PEEK)
            return seen[0] if seen else None
        except BlockingIOError:
            readable: asyncio.Future[None] = loop.create_future()
            loop.add_reader(connection, _wake, readable)
            try:
                await readable
            finally:
                loop.remove_reader(connection)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


async def _answer(connection: socket.socket) -> None:
    """Say why, so that the caller hears it: bytes that are left unread would cut the answer off."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, _ANSWER)
    connection.shutdown(socket.SHUT_WR)
    left = 64 * 1024
    while left > 0 and (read := await loop.sock_recv(connection, 16 * 1024)):
        left -= len(read)


def _explain(error: Exception) -> str:
    """Why a handshake failed, and what to mend."""
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return _ALERTS.get(error.reason or "", f"the handshake failed: {error.reason or error}")
    if isinstance(error, TimeoutError):
        return "the caller did not go on with the handshake"
    return _MISTRUST % "it hung up when it saw it, and says why in its own log"
