"""Leading a partition, term after term: elect, fence, replay, go; and stop at once when the term is over.

The loop is the same for the operator and for the simulation; only the stores under it differ.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from tickwheel_operator.clock import Clock
from tickwheel_operator.engine.messages import Command
from tickwheel_operator.engine.spec import EngineConfig
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.protocol import Deposed, LedgerCorrupt, LedgerError
from tickwheel_operator.runtime.partition import CommitConfig, PartitionHost, Term, ViewSink

__all__ = ["Catalog", "ElectedTerm", "Election", "Leadership", "LeadershipConfig"]

_log = logging.getLogger(__name__)


class ElectedTerm(Term, Protocol):
    """A term that ends."""

    async def lost(self) -> str:
        """Return, with the reason, when the term is lost."""
        ...

    async def release(self) -> None:
        """Give it up, so that a successor need not wait for the lease to expire."""
        ...


class Election(Protocol):
    async def acquire(self) -> ElectedTerm:
        """Wait for leadership."""
        ...


class Catalog(Protocol):
    """What exists: kept warm by followers too."""

    async def wait_synced(self) -> None: ...

    def snapshot(self) -> Iterable[Command]:
        """The commands that make a new engine know all objects, now."""
        ...


class LeadershipConfig(msgspec.Struct, frozen=True, kw_only=True):
    engine: EngineConfig = EngineConfig()
    commit: CommitConfig = CommitConfig()
    retry_ms: int = 1_000
    """Pause before the next try after a term that ended with an error."""
    release_ms: int = 5_000
    """How long a stopping leader may take to append and answer what it has decided."""


class Leadership:
    """Runs terms of one partition until it is stopped."""

    def __init__(
        self,
        election: Election,
        open_ledger: Callable[[], Ledger],
        catalog: Catalog,
        clock: Clock,
        config: LeadershipConfig,
        *,
        sink: ViewSink | None = None,
        on_lead: Callable[[PartitionHost], None] = lambda host: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._election = election
        self._open_ledger = open_ledger
        self._catalog = catalog
        self._clock = clock
        self._config = config
        self._sink = sink
        self._on_lead = on_lead
        self._on_end = on_end
        self.host: PartitionHost | None = None
        """The host of the term that this process leads now; None while it follows."""
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End after what is decided is durable, and release the lease."""
        self._stop.set()

    async def run(self) -> None:
        """Lead whenever elected, until `stop()`. Raises `LedgerCorrupt`: a person must look before anybody leads."""
        stopping = asyncio.create_task(self._stop.wait(), name="leadership-stop")
        try:
            while not self._stop.is_set():
                electing = asyncio.create_task(self._elect(), name="leadership-elect")
                await asyncio.wait({electing, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not electing.done():
                    electing.cancel()
                    await asyncio.gather(electing, return_exceptions=True)
                    break
                term = electing.result()
                try:
                    await self._serve(term, stopping)
                except LedgerCorrupt:
                    raise
                except LedgerError as error:
                    _log.warning("the term ended: %s", error)
                    await asyncio.sleep(self._config.retry_ms / 1000)
                finally:
                    await term.release()
        finally:
            stopping.cancel()

    async def _elect(self) -> ElectedTerm:
        # A replica whose catalog is not complete could only lead badly: it does not stand.
        await self._catalog.wait_synced()
        return await self._election.acquire()

    async def _serve(self, term: ElectedTerm, stopping: asyncio.Task[bool]) -> None:
        ledger = self._open_ledger()
        host = PartitionHost(
            ledger,
            term,
            self._clock,
            engine_config=self._config.engine,
            commit=self._config.commit,
            sink=self._sink,
        )
        lost = asyncio.create_task(term.lost(), name="leadership-lost")
        leading = asyncio.create_task(self._lead(host), name="leadership-lead")
        try:
            await asyncio.wait({lost, leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not lost.done() and not leading.done():
                host.stop()
                await asyncio.wait(
                    {lost, leading}, timeout=self._config.release_ms / 1000, return_when="FIRST_COMPLETED"
                )
            if lost.done() and not leading.done():
                raise Deposed(f"the lease was lost: {lost.result()}")
            if leading.done():
                leading.result()
        finally:
            self.host = None
            for task in (lost, leading):
                task.cancel()
            await asyncio.gather(lost, leading, return_exceptions=True)
            await ledger.close()
            self._on_end()

    async def _lead(self, host: PartitionHost) -> None:
        await host.take_over(self._catalog.snapshot)
        self.host = host
        _log.info("leading since epoch %d, %d open runs replayed", host.epoch, host.replayed_runs)
        self._on_lead(host)
        await host.run()
