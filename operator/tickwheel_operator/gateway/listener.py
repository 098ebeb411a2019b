"""The gateway's port: who may connect, and who speaks TLS as it should.

aiohttp and asyncio take any number of connections, keep those that say nothing, and drop one whose handshake fails
without a word, on both sides: a worker with an `http://` endpoint or without our authority would look as if the network
were broken. So connections are accepted here, if `gateway.connections` admits them; where the port speaks TLS their
first byte is looked at, and a handshake that fails is named with its peer. Used by `gateway.server`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import Callable

from tickwheel_operator.gateway.connections import Connection, Connections
from tickwheel_operator.gateway.refusals import Refusals
from tickwheel_operator.identity.refusal import Reason

__all__ = ["Listener"]

_log = logging.getLogger(__name__)
_HANDSHAKE = 0x16
"""The first byte of TLS; of an HTTP request it is a letter."""
_BACKLOG = 1024
_PAUSE_S = 0.5
_SWEEP_S = 1.0
_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: close without a farewell, and keep nothing of it."""
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


class Listener:
    """Listens once `start` is called, until `stop`."""

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        refusals: Refusals,
        connections: Connections,
        *,
        timeout_s: float = 10.0,
    ) -> None:
        """`factory` makes the protocol of a connection, whose end must be told by `lost`; without a `context` it is
        plain HTTP. The handshake may take `timeout_s`."""
        self._factory = factory
        self._context = context
        self._refusals = refusals
        self._connections = connections
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._beginning: set[asyncio.Task[None]] = set()
        self._of: dict[object, Connection] = {}
        """By their protocols, those whose handshake has ended."""

    def start(self, host: str, port: int) -> int:
        """Listen; the port. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        self._socket.setblocking(False)
        self._tasks = [
            asyncio.create_task(self._accept(self._socket), name="gateway-accept"),
            asyncio.create_task(self._sweep(), name="gateway-sweep"),
        ]
        return int(self._socket.getsockname()[1])

    async def stop(self) -> None:
        """Take no more connections; those that have begun are the server's."""
        tasks = [*self._beginning, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    def connection(self, protocol: object) -> Connection | None:
        """The connection of a protocol; None: it has ended."""
        return self._of.get(protocol)

    def proven(self, protocol: object) -> None:
        """A request on the protocol's connection was authorized."""
        connection = self._of.get(protocol)
        if connection is not None:
            self._connections.prove(connection)

    def lost(self, protocol: object) -> None:
        """The protocol's connection has ended."""
        connection = self._of.pop(protocol, None)
        if connection is not None:
            self._connections.ended(connection)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                # Out of file descriptors, or the peer has gone already: neither may end the gateway.
                _log.warning("the gateway cannot accept a connection: %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            peer = address[0]
            connection = self._connections.admit(peer)
            if isinstance(connection, str):
                self._refusals.note(Reason.TOO_MANY_CONNECTIONS, connection, peer=peer, what="a connection")
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                accepted.close()
                continue
            task = asyncio.create_task(self._begin(accepted, connection), name="gateway-handshake")
            connection.set_abort(task.cancel)
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            for late in self._connections.cut_off_late():
                self._refusals.note(
                    Reason.TOO_SLOW, "no request of it was authorized in time", peer=late.source, what="a connection"
                )

    async def _begin(self, accepted: socket.socket, connection: Connection) -> None:
        given = open_ = False
        peer = connection.source
        try:
            async with asyncio.timeout(self._timeout_s):
                first = await _first_byte(accepted) if self._context is not None else _HANDSHAKE
                if first == _HANDSHAKE:
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    given = True
                    await self._serve(accepted, connection)
                    open_ = True
                elif first is not None:
                    self._refusals.note(Reason.PLAIN_HTTP, _DETAIL, peer=peer, what="a connection")
                    await _answer(accepted)
        except (OSError, TimeoutError) as error:
            if given:
                self._refusals.note(Reason.HANDSHAKE, _explain(error), peer=peer, what="a connection")
            else:
                # Health checks of load balancers connect and leave; a scan of ports says nothing at all.
                _log.debug("%s did not begin to speak: %r", peer, error)
        finally:
            if not given:
                accepted.close()
            if not open_:
                self._connections.ended(connection)

    async def _serve(self, accepted: socket.socket, connection: Connection) -> None:
        """Give it to the server, after the handshake of TLS."""
        protocol = self._factory()
        # It may be lost before this goes on.
        self._of[protocol] = connection
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, accepted, ssl=self._context
            )
        except BaseException:
            self._of.pop(protocol, None)
            raise
        connection.set_abort(transport.abort)
        self._connections.begun(connection)


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
