"""How many connections there are, whose, and for how long: what whoever reaches the port can take, and no more.

A connection is *unproven* until a request on it was authorized. Unproven ones are few, in all and of one address, and
short-lived; those that are proven, of workers and of callers with a right, only count into the total. Where the room
is full, the address that has the most connections loses its latest to an address that has fewer, so that a flood from
one address keeps nobody else out. `gateway.listener` asks here before a handshake, `gateway.server` tells what came of
the connection. It does no I/O of its own. On the gateway's loop only.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from tickwheel_operator.turns import Allowance

__all__ = ["Connection", "ConnectionLimits", "Connections"]


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What is allowed."""

    most: int = 10_000
    """All connections. With TLS each takes about 51 KiB."""
    unproven: int = 1_000
    """Those on which nobody was authorized yet."""
    unproven_of_one: int = 250
    """The same, of one address."""
    headers_s: float = 10.0
    """How long the first request may take to arrive, seconds, from the end of the handshake."""
    unproven_s: float = 60.0
    """How long a connection may stay unproven, seconds."""
    failures_per_s: float = 50.0
    failures_burst: int = 500
    """How many connections of one address may end unproven at once, and a second, before more are refused."""


class Connection:
    """One that was admitted."""

    __slots__ = ("_abort", "heard", "since_s", "source")

    def __init__(self, source: str, since_s: float) -> None:
        self.source = source
        self.since_s = since_s
        """When it was admitted, then when its handshake ended."""
        self.heard = False
        """Whether a whole request has arrived."""
        self._abort: Callable[[], object] | None = None

    def set_abort(self, abort: Callable[[], object]) -> None:
        """`abort` cuts the connection off, from now on."""
        self._abort = abort

    def abort(self) -> None:
        if self._abort is not None:
            self._abort()


class _Places:
    """Connections by address, the oldest first."""

    def __init__(self) -> None:
        self.number = 0
        self._of: dict[str, dict[Connection, None]] = {}

    def of(self, source: str) -> int:
        return len(self._of.get(source, ()))

    def has(self, connection: Connection) -> bool:
        return connection in self._of.get(connection.source, ())

    def add(self, connection: Connection) -> None:
        self._of.setdefault(connection.source, {})[connection] = None
        self.number += 1

    def remove(self, connection: Connection) -> None:
        places = self._of.get(connection.source)
        if places is not None and connection in places:
            del places[connection]
            self.number -= 1
            if not places:
                del self._of[connection.source]

    def latest_of_the_largest(self, newcomer: str) -> Connection | None:
        """None: no address has more than `newcomer` would have."""
        largest = max(self._of, key=lambda source: len(self._of[source]))
        if len(self._of[largest]) <= self.of(newcomer) + 1:
            return None
        return next(reversed(self._of[largest]))

    def all(self) -> list[Connection]:
        return [connection for places in self._of.values() for connection in places]


class Connections:
    """All connections of one gateway."""

    def __init__(self, limits: ConnectionLimits, now_s: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._now_s = now_s
        self._all = _Places()
        self._unproven = _Places()
        self._failures = Allowance(per_s=limits.failures_per_s, burst=limits.failures_burst)

    def __len__(self) -> int:
        return self._all.number

    @property
    def unproven(self) -> int:
        return self._unproven.number

    def admit(self, source: str) -> Connection | str:
        """A new connection, or why it is refused. May cut another one off."""
        limits = self._limits
        now_s = self._now_s()
        if self._unproven.of(source) >= limits.unproven_of_one:
            return f"{limits.unproven_of_one} connections of this address have not been authorized yet"
        if not self._failures.is_left(source, int(now_s * 1000)):
            often = f"{limits.failures_per_s:g} a second"
            return f"more than {often} connections of this address ended without a request that was authorized"
        if self._unproven.number >= limits.unproven and not self._make_room(self._unproven, source):
            return f"{limits.unproven} connections have not been authorized yet"
        if self._all.number >= limits.most and not self._make_room(self._all, source):
            return f"there are {limits.most} connections: raise the setting max_connections, and memory with it"
        connection = Connection(source, now_s)
        self._all.add(connection)
        self._unproven.add(connection)
        return connection

    def begun(self, connection: Connection) -> None:
        """Its handshake has ended: now its first request is due."""
        connection.since_s = self._now_s()

    def prove(self, connection: Connection) -> None:
        """A request on it was authorized."""
        self._unproven.remove(connection)

    def ended(self, connection: Connection) -> None:
        """It is closed. May be called more than once."""
        if self._unproven.has(connection):
            self._failures.spend(connection.source, int(self._now_s() * 1000))
        self._unproven.remove(connection)
        self._all.remove(connection)

    def cut_off_late(self) -> list[Connection]:
        """Cut off those that take too long; which."""
        limits, now_s = self._limits, self._now_s()
        late = [
            connection
            for connection in self._unproven.all()
            if now_s - connection.since_s >= (limits.unproven_s if connection.heard else limits.headers_s)
        ]
        for connection in late:
            connection.abort()
        return late

    def _make_room(self, places: _Places, newcomer: str) -> bool:
        victim = places.latest_of_the_largest(newcomer)
        if victim is None:
            return False
        self.ended(victim)
        victim.abort()
        return True
