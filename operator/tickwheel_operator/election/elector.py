"""Who leads a partition: client-go's leader election, on clocks that cannot be fooled.

The host of a partition calls `acquire`, leads for the `Term` that it gets, and calls it again when the term is lost.
What is client-go's: a rival's Lease is over only when *we* have not seen its record change for as long as it says;
pauses are jittered; renewal is given up after a deadline shorter than the Lease; a shutdown releases it. What is
stricter: time is the boot clock's, which runs on through a suspend; freshness counts from before the renewal was sent;
and a term ends at once when another holder is seen. The invariant: while `Term.is_fresh()`, no rival can have acquired
the Lease, unless a person edits or deletes it.

The Lease is for liveness and for peace. Safety is the ledger's (`ledger.log`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

import msgspec

from tickwheel_operator.clock import Clock
from tickwheel_operator.election.config import JITTER, ElectionConfig
from tickwheel_operator.election.identity import read_identity
from tickwheel_operator.election.lease import Lease, LeaseConflict, LeaseError, LeaseStore
from tickwheel_operator.election.term import Term

__all__ = ["Elector", "Observed"]

_LOG = logging.getLogger(__name__)
_RELEASED_MS = 1_000
"""The duration that a released Lease says: the shortest there is."""
_HANDOVER_S = 0.2
"""When the watch sees a release, followers spread their tries over so long."""


class Observed(msgspec.Struct, frozen=True):
    """What this process last saw of the Lease."""

    holder: str
    endpoint: str
    transitions: int


class Elector:
    """One candidate for one Lease."""

    def __init__(
        self,
        store: LeaseStore,
        *,
        name: str,
        identity: str,
        endpoint_url: str,
        clock: Clock,
        config: ElectionConfig | None = None,
        random: random.Random | None = None,
    ) -> None:
        """`identity` must be of this process alone: a restarted one has another (`election.identity`)."""
        self._store = store
        self._name = name
        self._identity = identity
        self._endpoint_url = endpoint_url
        self._clock = clock
        self._config = config or ElectionConfig()
        self._random = random or _unseeded()
        self._lease: Lease | None = None
        self._changed_ms = 0
        """Boot clock when the record was last seen to be another than before."""
        self._may_hold = False
        """Whether a write is, or was, on its way that may have made the Lease ours, and no term stands for it."""
        self._term: Term | None = None
        self._dead = ""
        """A holder whose process is known to have ended: its Lease need not expire."""
        self._released = asyncio.Event()
        """Set when there is no reason to wait for the next try."""

    @property
    def observed(self) -> Observed:
        """Who leads, as last seen. A holder that died shows until it is replaced."""
        lease = self._lease
        return Observed(lease.holder, lease.endpoint, lease.transitions) if lease else Observed("", "", 0)

    def replica_ended(self, pod: str, before_ms: int) -> None:
        """The processes of this pod that began before the instant (of its node's clock) have ended: if one of them held
        the Lease, it is free.

        A process that began later is not meant, though its pod is the same. Safe even if it were wrong: whoever leads
        fences the ledger first.
        """
        holder = self.observed.holder
        name, started_ms = read_identity(holder)
        if name == pod and 0 < started_ms < before_ms and holder != self._identity:
            _LOG.info("the leader %s has ended; its lease need not expire", holder)
            self._dead = holder
            self._released.set()

    async def acquire(self) -> Term:
        """Wait until this process leads. Cancel it to stand back."""
        if self._term is not None and not self._term.ended:
            raise RuntimeError(f"{self._identity} leads {self._name} already; release or lose the term first")
        try:
            tried_ms = await self._stand()
        except asyncio.CancelledError:
            await self._take_back()
            raise
        self._may_hold = False
        transitions = self.observed.transitions
        _LOG.info("%s leads %s (transition %d)", self._identity, self._name, transitions)
        self._term = Term(self, self._clock, self._config, epoch_floor=transitions, renewed_ms=tried_ms)
        return self._term

    async def _stand(self) -> int:
        """Try until the Lease is ours. The boot clock before the try that succeeded."""
        released = self._released
        watching = asyncio.create_task(self._watch(), name=f"watch of lease {self._name}")
        try:
            while True:
                tried_ms = self._clock.boot_ms()
                released.clear()
                if await self._try_to_acquire():
                    return tried_ms
                wait_s = self._config.retry_period_ms / 1000 * (1 + JITTER * self._random.random())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await released.wait()
                        await asyncio.sleep(_HANDOVER_S * self._random.random())
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    # --- the record ----------------------------------------------------------------------------------------------

    async def _try_to_acquire(self) -> bool:
        """One try of client-go's tryAcquireOrRenew, for one who does not lead."""
        try:
            found = await self._store.get(self._name)
            self._see(found)
            if found is None:
                self._may_hold = True
                self._see(await self._store.create(self._name, self._record(transitions=0)))
            elif found.holder == self._identity:
                # An earlier write came through though its answer was lost, or a term ended before its Lease did.
                self._may_hold = True
                self._see(await self._store.update(self._name, self._renewed(found)))
            elif (
                found.holder
                and found.holder != self._dead
                and self._clock.boot_ms() < self._changed_ms + found.duration_ms
            ):
                self._may_hold = False
                return False
            else:
                self._may_hold = True
                record = self._record(transitions=found.transitions + 1, version=found.version)
                self._see(await self._store.update(self._name, record))
        except LeaseConflict:
            return False
        except LeaseError as error:
            _LOG.warning("%s cannot stand for %s: %s", self._identity, self._name, error)
            return False
        return True

    async def _take_back(self) -> None:
        """The caller was cancelled: what was being written must not bind the Lease until it expires."""
        if self._may_hold:
            self._may_hold = False
            with contextlib.suppress(LeaseError, TimeoutError):
                async with asyncio.timeout(self._config.retry_period_ms / 1000):
                    await self.release()

    async def renew(self) -> str:
        """Renew once; the reason where the Lease is lost, else empty. Raises `LeaseError` where nothing is known.

        For `Term` only.
        """
        mine = self._lease
        if mine is not None and mine.holder == self._identity:
            # The fast path: what we saw last is most likely what is there.
            try:
                self._see(await self._store.update(self._name, self._renewed(mine)))
                return ""
            except LeaseError as error:
                _LOG.info("renewing %s by what was seen last failed, reading it: %s", self._name, error)
        found = await self._store.get(self._name)
        self._see(found)
        if found is None:
            return f"lease {self._name} was deleted"
        if found.holder != self._identity:
            return (
                f"lease {self._name} is held by {found.holder}" if found.holder else f"lease {self._name} was cleared"
            )
        self._see(await self._store.update(self._name, self._renewed(found)))
        return ""

    async def release(self) -> None:
        """Leave the Lease to whoever comes, if it is ours still. For `Term` only; raises `LeaseError`."""
        found = await self._store.get(self._name)
        self._see(found)
        if found is None or found.holder != self._identity:
            return
        now_ms = self._clock.now_ms()
        record = msgspec.structs.replace(
            found, holder="", endpoint="", duration_ms=_RELEASED_MS, acquired_ms=now_ms, renewed_ms=now_ms
        )
        with contextlib.suppress(LeaseConflict):
            self._see(await self._store.update(self._name, record))

    def _record(self, *, transitions: int, version: str = "") -> Lease:
        now_ms = self._clock.now_ms()
        return Lease(
            holder=self._identity,
            duration_ms=self._config.lease_duration_ms,
            acquired_ms=now_ms,
            renewed_ms=now_ms,
            transitions=transitions,
            endpoint=self._endpoint_url,
            version=version,
        )

    def _renewed(self, lease: Lease) -> Lease:
        return msgspec.structs.replace(
            lease,
            renewed_ms=self._clock.now_ms(),
            duration_ms=self._config.lease_duration_ms,
            endpoint=self._endpoint_url,
        )

    def _see(self, lease: Lease | None) -> None:
        """Note what the store has. Only a change of the record itself counts as a sign of life, as in client-go."""
        if _record_of(lease) != _record_of(self._lease):
            self._changed_ms = self._clock.boot_ms()
        self._lease = lease

    async def _watch(self) -> None:
        """Set `_released` when nobody holds the Lease any more. Polling goes on beside it, so it may fail."""
        while True:
            try:
                async with contextlib.aclosing(self._store.watch(self._name)) as changes:
                    async for lease in changes:
                        if lease is None or not lease.holder:
                            self._released.set()
            except LeaseError as error:
                _LOG.debug("the watch of %s ended: %s", self._name, error)
            except Exception:
                _LOG.exception("the watch of %s ended for a reason that it does not know", self._name)
            await asyncio.sleep(self._config.retry_period_ms / 1000)


def _record_of(lease: Lease | None) -> Lease | None:
    """Without what others may change: any edit of the object's metadata gives it a new version."""
    return msgspec.structs.replace(lease, version="", endpoint="") if lease else None


def _unseeded() -> random.Random:
    return random.Random()
