"""The Secret in memory, with what makes the real one safe: who writes must have read what is there."""

from __future__ import annotations

from tickwheel_operator.kube.errors import ApiUnavailable
from tickwheel_operator.tls.rotation import Authorities
from tickwheel_operator.tls.store import Stored

__all__ = ["MemorySecret"]


class MemorySecret:
    """Stands in for `AuthorityStore`, and passes its contract test (`tests.contract.authority_store`)."""

    def __init__(self) -> None:
        self.stored: Stored | None = None
        self.down = False
        self.writes = 0

    async def read(self) -> Stored | None:
        if self.down:
            raise ApiUnavailable("the API server cannot be reached")
        return self.stored

    async def write(self, authorities: Authorities, replaces: Stored | None) -> Stored | None:
        if self.down:
            raise ApiUnavailable("the API server cannot be reached")
        if (replaces.version if replaces else "") != (self.stored.version if self.stored else ""):
            return None
        self.writes += 1
        self.stored = Stored(authorities, str(self.writes))
        return self.stored
