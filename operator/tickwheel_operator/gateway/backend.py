"""The seam between the gateway and whoever runs the partitions: the runtime's host, or a script in a test.

The gateway knows HTTP, the host knows the engine and the ledger. All that passes between them is here: who leads, and
one command at a time with its answer. The invariant "facts before effects" (DESIGN, section 2) is the host's to keep:
the gateway writes to the wire whatever `call` returns.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Protocol

import msgspec

from tickwheel_operator.engine.messages import Command, Effect
from tickwheel_operator.gateway.schemas import Replica
from tickwheel_operator.handlers.known import HandlerSchema

__all__ = ["Backend", "Leadership", "NotLeader"]


class NotLeader(Exception):
    """This replica does not lead the partition; `leader_url` does, or nobody is known to when it is empty."""

    def __init__(self, leader_url: str = "") -> None:
        super().__init__(leader_url)
        self.leader_url = leader_url


class Leadership(msgspec.Struct, frozen=True, kw_only=True):
    """Who leads what, as this replica sees it now."""

    is_leader: bool
    """This replica leads, has replayed its ledger and may answer workers."""
    epoch: int = 0
    """The epoch of this replica's leadership; for a follower the highest that it knows of."""
    ledger: str = ""
    """The identity of this replica's ledger, if it leads."""
    leader_url: str = ""
    """Where the leader's gateway is reached, without a path; empty while there is none."""
    partitions: int = 1
    replicas: tuple[Replica, ...] = ()
    """The replicas that lead partitions."""


class Backend(Protocol):
    """What the gateway needs of the host. All methods are called on the gateway's event loop."""

    def leadership(self) -> Leadership:
        """The present state. Called for every request: it must be a plain read."""
        ...

    async def call(self, command: Command) -> Effect:
        """Hand over a command with a `request` and wait for the effect that answers it, durable.

        The answer belongs to the leadership that held when the call was made: if that ends before the answer is
        durable, even if this replica leads again at once, `NotLeader` is raised and the outcome is unknown to the
        caller, who may ask again since every command is idempotent. Cancellation passes through; for a waiting
        `Pull` the host then sends `PullEnded` to the engine.
        """
        ...

    def wants_schemas(self, namespace: str, pool: str, name: str) -> bool:
        """Whether the handlers' schemas of this hash are to be sent. Called for every pull: it must be a plain read."""
        ...

    def take_schemas(self, namespace: str, pool: str, name: str, schemas: Mapping[str, HandlerSchema]) -> None:
        """A worker sent them."""
        ...

    def new_request(self) -> Hashable:
        """A handle for one command, equal to none that is still in use."""
        ...

    def now_ms(self) -> int:
        """Wall-clock milliseconds since the Unix epoch, UTC: the clock that the engine is given."""
        ...

    def now_us(self) -> int:
        """The same clock in microseconds: workers compare theirs with it."""
        ...
