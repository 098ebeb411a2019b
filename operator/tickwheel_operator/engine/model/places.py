"""Where an open dispatch is: one place at a time.

    made --+--> delayed --> expected --> reserved --+
           +--> blocked ---+                        +--> leased --> (ended, or made ready again)
           +--> queued <---+------------------------+

`engine.dispatch.routing` is the only one that moves a dispatch; a new leader works the places out again, so nothing
here is durable.
"""

from __future__ import annotations

import enum

__all__ = ["LEASED", "NOWHERE", "QUEUED", "RESERVED", "TRANSITIONS", "Place", "WaitingRoom"]


class Place(enum.IntEnum):
    """Where a dispatch is. Those above `LEASED` are waits, which it must leave when it ends."""

    NOWHERE = 0
    """It was just made or has ended, its spec is not known, or it stands for other runs."""
    LEASED = 1
    """A worker has it, or gets it in this command."""
    DELAYED = 2
    """It waits for an instant: a delay, a jitter or a backoff. Its timer is set."""
    BLOCKED = 3
    """It waits for other runs to end."""
    EXPECTED = 4
    """Delayed, and its instant is near: the next worker that comes and knows the time gets it."""
    RESERVED = 5
    """Dealt to a worker in this command, ahead of its instant."""
    QUEUED = 6
    """It waits for a worker, in the queue of its handler."""


class WaitingRoom:
    """What a dispatch waits in: a handler's queue, a pool, or a worker that a place is reserved at. `engine.dispatch`
    has them all; this names them for those below it."""

    __slots__ = ()


NOWHERE, LEASED, QUEUED, RESERVED = Place.NOWHERE, Place.LEASED, Place.QUEUED, Place.RESERVED
"""For the hot path: to look a member up costs 40 ns each time."""

_WAITING = frozenset({Place.DELAYED, Place.BLOCKED, Place.EXPECTED, Place.RESERVED, Place.QUEUED})

TRANSITIONS: dict[Place, frozenset[Place]] = {
    Place.NOWHERE: _WAITING | {Place.LEASED, Place.NOWHERE},
    Place.LEASED: _WAITING | {Place.NOWHERE},
    Place.DELAYED: _WAITING | {Place.NOWHERE},
    Place.BLOCKED: _WAITING | {Place.NOWHERE},
    Place.EXPECTED: _WAITING | {Place.NOWHERE, Place.LEASED},
    Place.RESERVED: frozenset({Place.NOWHERE, Place.LEASED, Place.DELAYED, Place.BLOCKED}),
    Place.QUEUED: frozenset({Place.NOWHERE, Place.LEASED, Place.BLOCKED, Place.QUEUED}),
}
"""From each place to those that may come next. An edit moves what waits to another pool or queue, so that it may come
to the place that it has."""
