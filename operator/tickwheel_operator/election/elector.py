"""Who leads a partition: client-go's leader election, on clocks that cannot be fooled.

The host of a partition calls `acquire`, leads for the `Term` that it gets, and calls it again when the term is lost.
What is client-go's: a rival's Lease is over only when *we* have not seen its record change for as long as it says; waits
are jittered; renewal is given up after a deadline shorter than the Lease; a shutdown releases it. What is stricter:
time is the boot clock's, which runs on through a suspend; freshness counts from before the renewal was sent; and a term
ends at once when another holder is seen. The invariant: while `Term.is_fresh()`, no rival can have acquired the Lease.

The Lease is for liveness and for peace. Safety is the ledger's (`ledger.log`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator

import msgspec

from tickwheel_operator.clock import Clock
from tickwheel_operator.election.lease import Lease, LeaseConflict, LeaseError, LeaseStore

__all__ = ["ElectionConfig", "Elector", "Observed", "Term"]

_LOG = logging.getLogger(__name__)
_JITTER = 1.2
"""client-go's JitterFactor: a wait is between one and 2.2 retry periods."""
_RELEASED_MS = 1_000
"""The duration that a released Lease says: the shortest there is."""
_HANDOVER_S = 0.2
"""When the watch sees a release, followers spread their tries over so long."""


class ElectionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The three durations of client-go, with its defaults."""

    lease_duration_ms: int = 15_000
    """How long others leave a Lease alone that its holder does not renew, in whole seconds. A crashed leader is
    replaced after this. More than `renew_deadline_ms`."""
    renew_deadline_ms: int = 10_000
    """How long a leader that cannot renew still counts as fresh, and tries. More than 1.2 times `retry_period_ms`."""
    retry_period_ms: int = 2_000
    """Between two renewals of a leader, and the shortest time between two tries of a follower."""

    def __post_init__(self) -> None:
        if self.lease_duration_ms <= self.renew_deadline_ms:
            raise ValueError(
                f"lease duration ({self.lease_duration_ms} ms) must be more than the renew deadline "
                f"({self.renew_deadline_ms} ms), for example 15000 and 10000"
            )
        if self.renew_deadline_ms <= _JITTER * self.retry_period_ms:
            raise ValueError(
                f"renew deadline ({self.renew_deadline_ms} ms) must be more than {_JITTER} times the retry period "
                f"({self.retry_period_ms} ms), for example 10000 and 2000"
            )
        if self.retry_period_ms < 1:
            raise ValueError(f"retry period must be at least 1 ms, not {self.retry_period_ms}")
        if self.lease_duration_ms % 1000:
            raise ValueError(f"lease duration must be whole seconds, for example 15000 ms, not {self.lease_duration_ms}")


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
        """`identity` must be of this process alone: a restarted one has another (a pod's name and something drawn)."""
        self._store = store
        self._name = name
        self._identity = identity
        self._endpoint_url = endpoint_url
        self._clock = clock
        self._config = config or ElectionConfig()
        self._random = random or _system_random()
        self._lease: Lease | None = None
        self._changed_ms = 0
        """Boot clock when the record was last seen to be another than before."""
        self._term: Term | None = None

    @property
    def observed(self) -> Observed:
        """Who leads, as last seen. A holder that died shows until it is replaced."""
        lease = self._lease
        return Observed(lease.holder, lease.endpoint, lease.transitions) if lease else Observed("", "", 0)

    async def acquire(self) -> Term:
        """Wait until this process leads. Cancel it to stand back."""
        if self._term is not None and not self._term.ended:
            raise RuntimeError(f"{self._identity} leads {self._name} already; release or lose the term first")
        released = asyncio.Event()
        watching = asyncio.create_task(self._watch(released), name=f"watch of lease {self._name}")
        try:
            while True:
                sent_ms = self._clock.boot_ms()
                released.clear()
                if await self._try_to_acquire():
                    break
                wait_s = self._config.retry_period_ms / 1000 * (1 + _JITTER * self._random.random())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await released.wait()
                        await asyncio.sleep(_HANDOVER_S * self._random.random())
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        assert self._lease is not None  # noqa: S101
        _LOG.info("%s leads %s (transition %d)", self._identity, self._name, self._lease.transitions)
        self._term = Term(self, self._clock, self._config, epoch_floor=self._lease.transitions, renewed_ms=sent_ms)
        return self._term

    # --- the record ----------------------------------------------------------------------------------------------

    async def _try_to_acquire(self) -> bool:
        """One try of client-go's tryAcquireOrRenew, for one who does not lead."""
        try:
            found = await self._store.get(self._name)
            self._see(found)
            if found is None:
                self._see(await self._store.create(self._name, self._record(transitions=0)))
                return True
            if found.holder and self._clock.boot_ms() < self._changed_ms + found.duration_ms:
                return False
            record = self._record(transitions=found.transitions + 1, version=found.version)
            self._see(await self._store.update(self._name, record))
            return True
        except LeaseConflict:
            return False
        except LeaseError as error:
            _LOG.warning("%s cannot stand for %s: %s", self._identity, self._name, error)
            return False

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
            return f"lease {self._name} is held by {found.holder}" if found.holder else f"lease {self._name} was cleared"
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
        if lease is None or self._lease is None or lease.version != self._lease.version:
            self._lease = lease
            self._changed_ms = self._clock.boot_ms()

    async def _watch(self, released: asyncio.Event) -> None:
        """Set `released` when nobody holds the Lease any more. Polling goes on beside it, so it may fail."""
        while True:
            try:
                async with contextlib.aclosing(_generator(self._store.watch(self._name))) as changes:
                    async for lease in changes:
                        if lease is None or not lease.holder:
                            released.set()
            except LeaseError as error:
                _LOG.debug("the watch of %s ended: %s", self._name, error)
            await asyncio.sleep(self._config.retry_period_ms / 1000)
