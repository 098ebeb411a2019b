"""One term of leadership: renewed in the background until it is lost or released.

Made by `Elector.acquire`, held by the host of a partition. `is_fresh` is what the host asks before it releases an
effect; `lost` is what it waits for beside its work. A term never begins again: the next one is another object.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from tickwheel_operator.clock import Clock
from tickwheel_operator.election.config import ElectionConfig
from tickwheel_operator.election.lease import LeaseError

__all__ = ["Term"]

_LOG = logging.getLogger(__name__)


class _Holder(Protocol):
    """The elector, as its term uses it."""

    async def renew(self) -> str: ...

    async def release(self) -> None: ...


class Term:
    """The Lease is ours, for now."""

    def __init__(
        self, holder: _Holder, clock: Clock, config: ElectionConfig, *, epoch_floor: int, renewed_ms: int
    ) -> None:
        """`renewed_ms` is the boot clock before the request that acquired the Lease was sent."""
        self._holder = holder
        self._clock = clock
        self._config = config
        self.epoch_floor = epoch_floor
        """The Lease's `leaseTransitions`: the ledger's epoch is greater."""
        self._fresh_until_ms = renewed_ms + config.renew_deadline_ms
        self._reason = ""
        self._ended = asyncio.Event()
        self._renewing = asyncio.create_task(self._renew(), name="renewal of the lease")

    @property
    def fresh_until_ms(self) -> int:
        """Boot clock until which nobody else can have acquired the Lease; 0 once the term has ended."""
        return 0 if self.ended else self._fresh_until_ms

    def is_fresh(self) -> bool:
        """Whether the Lease is certainly ours at this moment."""
        return self._clock.boot_ms() < self.fresh_until_ms

    @property
    def ended(self) -> bool:
        """Whether the term was lost or released."""
        return self._ended.is_set()

    async def lost(self) -> str:
        """Wait until the term has ended; why it did."""
        await self._ended.wait()
        return self._reason

    async def release(self) -> None:
        """End the term and leave the Lease to whoever comes. Quick and quiet when it was lost before.

        When the store cannot be reached the Lease expires by itself.
        """
        patience_ms = self._config.retry_period_ms if self.ended else self._config.renew_deadline_ms
        self._end("released")
        self._renewing.cancel()
        await asyncio.wait([self._renewing])
        try:
            async with asyncio.timeout(patience_ms / 1000):
                await self._holder.release()
        except Exception as error:
            # Whatever it is, nothing may keep a leader that ends from ending.
            _LOG.warning("the lease could not be released and expires by itself: %r", error)

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        retry_s = self._config.retry_period_ms / 1000
        deadline_s = self._config.renew_deadline_ms / 1000
        while True:
            await asyncio.sleep(retry_s)
            give_up_s = loop.time() + deadline_s
            why = ""
            while (failure := await self._renew_once(give_up_s)) is not None:
                if self.ended:
                    return
                why = failure or why or "the API server did not answer"
                left_s = give_up_s - loop.time()
                if left_s <= 0:
                    self._end(f"it could not be renewed for {self._config.renew_deadline_ms} ms: {why}")
                    return
                await asyncio.sleep(min(retry_s, left_s))

    async def _renew_once(self, give_up_s: float) -> str | None:
        """None where it was renewed, else why it was not (empty: no answer in time).

        Ends the term where the Lease is somebody else's.
        """
        sent_ms = self._clock.boot_ms()
        try:
            async with asyncio.timeout_at(give_up_s):
                lost = await self._holder.renew()
        except TimeoutError:
            return ""
        except LeaseError as error:
            return str(error)
        except Exception as error:
            # A renewal that ended here would end in silence, and the replica would seem to lead.
            _LOG.exception("renewing the lease failed for a reason that it does not know; it is tried again")
            return repr(error)
        if lost:
            self._end(lost)
            return lost
        self._fresh_until_ms = sent_ms + self._config.renew_deadline_ms
        return None

    def _end(self, reason: str) -> None:
        if not self.ended:
            self._reason = reason
            self._ended.set()
            _LOG.info("the term ended: %s", reason)
