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
from tickwheel_operator.ledger.protocol import Deposed, LedgerCorrupt, LedgerError, StoreRefused
from tickwheel_operator.runtime.partition import CommitConfig, PartitionHost, Term, ViewSink
from tickwheel_operator.runtime.supervision import kept_alive
from tickwheel_operator.runtime.unheard import Missing, remove_deleted

__all__ = ["Catalog", "ElectedTerm", "Election", "Failure", "Leadership", "LeadershipConfig"]

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_MS = 60_000
_UIDS_SHOWN = 10


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


class Failure(msgspec.Struct, frozen=True):
    """What ended a term that neither the election nor the ledger ended: the engine or its host raised."""

    error: Exception
    uids: tuple[str, ...]
    """Of the tasks that were being decided for; empty: unknown."""
    command: object
    """That was carried out; None: it was not in a command."""
    lasted_s: float
    """The term."""


class _TermFailed(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class LeadershipConfig(msgspec.Struct, frozen=True, kw_only=True):
    engine: EngineConfig = EngineConfig()
    commit: CommitConfig = CommitConfig()
    retry_ms: int = 1_000
    """Pause before the next try after a term that ended with an error. If the engine raised, or the store refused what
    was written: twice as long each time, up to a minute, until a term has lasted for a minute."""
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
        missing: Missing,
        sink: ViewSink | None = None,
        on_lead: Callable[[PartitionHost], None] = lambda host: None,
        on_end: Callable[[], None] = lambda: None,
        on_failure: Callable[[Failure], None] = lambda failure: None,
    ) -> None:
        """`on_failure` hears what the engine raised: the next term must leave alone whatever it was about."""
        self._election = election
        self._open_ledger = open_ledger
        self._catalog = catalog
        self._clock = clock
        self._config = config
        self._missing = missing
        self._sink = sink
        self._on_lead = on_lead
        self._on_end = on_end
        self._on_failure = on_failure
        self._failures = 0
        """Terms in a row that the engine ended, or the store by refusing."""
        self.host: PartitionHost | None = None
        """The host of the term that this process leads now; None while it follows."""
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End after what is decided is durable, and release the lease."""
        self._stop.set()

    async def run(self) -> None:
        """Lead whenever elected, until `stop()`. Raises `LedgerCorrupt`: a person must look before anybody leads.

        Whatever else a term ends with, another follows it.
        """
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
                pause_ms, began_s = 0, asyncio.get_running_loop().time()
                try:
                    await self._serve(term, stopping)
                except LedgerCorrupt:
                    raise
                except StoreRefused as error:
                    # Each term writes an Epoch, which is kept for days: what is refused will be refused again.
                    pause_ms = self._pause_ms(asyncio.get_running_loop().time() - began_s)
                    _log.error("the ledger was refused, the next term begins in %.0f s: %s", pause_ms / 1000, error)
                except LedgerError as error:
                    _log.warning("the term ended: %s", error)
                    await asyncio.sleep(self._config.retry_ms / 1000)
                except _TermFailed as failed:
                    pause_ms = self._failed(failed.failure)
                finally:
                    await term.release()
                if pause_ms:
                    await asyncio.wait({stopping}, timeout=pause_ms / 1000)
        finally:
            stopping.cancel()

    def _failed(self, failure: Failure) -> int:
        """The engine ended the term. Returns the pause before the next, in which another replica may lead."""
        pause_ms = self._pause_ms(failure.lasted_s)
        _log.error(
            "the engine raised, which ended the term; the next begins in %.0f s, and leaves alone: %s",
            pause_ms / 1000,
            ", ".join(failure.uids[:_UIDS_SHOWN]) or "nothing, since no task is known to be the cause",
            exc_info=None if failure.uids else failure.error,
        )
        self._on_failure(failure)  # which logs it with the task
        return pause_ms

    def _pause_ms(self, lasted_s: float) -> int:
        """How long to wait after a term that failed for a reason that waiting alone does not mend."""
        self._failures = 1 if lasted_s * 1000 >= _LONGEST_PAUSE_MS else self._failures + 1
        return min(self._config.retry_ms << min(self._failures - 1, 20), _LONGEST_PAUSE_MS)

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
        began_s = asyncio.get_running_loop().time()
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
        except LedgerError:
            raise
        except Exception as raised:
            error = host.broken or raised
            lasted_s = asyncio.get_running_loop().time() - began_s
            raise _TermFailed(Failure(error, host.engine.culprits(error), host.broken_by, lasted_s)) from error
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
        settling = asyncio.create_task(
            kept_alive("the search for deleted tasks", lambda: remove_deleted(host, self._missing)),
            name="leadership-unheard",
        )
        try:
            await host.run()
        finally:
            settling.cancel()
            await asyncio.gather(settling, return_exceptions=True)
