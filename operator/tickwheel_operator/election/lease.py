"""The seam of the election: a Lease that is read, and written only by whoever read it last.

`election.elector` runs the algorithm on top of it. Every implementation runs the contract test
(`tests/contract/lease_store.py`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

__all__ = ["LEASE_NAME", "Lease", "LeaseConflict", "LeaseError", "LeaseRefused", "LeaseStore", "LeaseUnavailable"]

LEASE_NAME = "tickwheel-partition-0"
"""Of the one partition, in the operator's namespace."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who leads, as the Lease object says."""

    holder: str
    """Identity of the leader; empty when it was released."""
    duration_ms: int
    """How long after its last change the others leave it alone. Kubernetes keeps whole seconds."""
    acquired_ms: int
    """Wall clock of the holder when it began to lead. Only for people."""
    renewed_ms: int
    """Wall clock of the holder when it last renewed. Only for people: nobody's clock is compared with another's."""
    transitions: int
    """How often the holder has changed."""
    endpoint: str = ""
    """Where the holder's gateway is reached."""
    version: str = ""
    """The store's version of the object; an update names the version that it replaces."""


class LeaseError(Exception):
    """The base of what a `LeaseStore` raises."""


class LeaseConflict(LeaseError):
    """Somebody else wrote first: it exists (create), it has changed or is gone (update). Read it again."""


class LeaseUnavailable(LeaseError):
    """No answer, or none that says whether it was carried out. Try again."""


class LeaseRefused(LeaseError):
    """The store will never accept it. The message says what to mend."""


class LeaseStore(Protocol):
    """Leases by name.

    `create` and `update` are atomic: of two that compete, one gets `LeaseConflict`. A `get` that starts after a
    write has returned sees it. All of them raise `LeaseUnavailable` and `LeaseRefused` too.
    """

    async def get(self, name: str) -> Lease | None:
        """The Lease, or None where there is none."""
        ...

    async def create(self, name: str, lease: Lease) -> Lease:
        """Put if absent; the answer has the store's version. `lease.version` is ignored."""
        ...

    async def update(self, name: str, lease: Lease) -> Lease:
        """Replace the version `lease.version`; the answer has the new one."""
        ...

    def watch(self, name: str) -> AsyncGenerator[Lease | None, None]:
        """The Lease as it changes, None when it is deleted; may begin with what it is now.

        Only to be quicker than polling: it may end, miss changes, or give nothing at all.
        """
        ...

    async def close(self) -> None:
        """Release what is held open."""
        ...
