"""The attempts that a link holds, and their clocks: renewals, timeouts, the ends of leases and of grace periods.

`_link` owns one. One timer serves them all, since a timer for each would cost more than to run a short handler.
Invariant: an attempt is held until its handler has really stopped, also when no report of it matters any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic

from ._attempt import Attempt, Stop
from ._execution import Execution
from ._outbox import add_progress, add_renewal
from ._protocol import ReportRequest

__all__ = ["LOOK_SECONDS", "Held"]

_log = logging.getLogger("tickwheel.worker")

LOOK_SECONDS = 1.0  # the longest pause between looks at the clocks of running attempts; also how often progress goes


class Held:
    """Lives in one event loop; `_watchdog` reads it from its thread."""

    def __init__(self, execution: Execution, renew: Callable[[], None]) -> None:
        """`renew` is called when a report should be sent, for what `fill` has to say."""
        self.attempts: dict[int, Attempt] = {}
        """Those whose handlers run or wait to, by token."""
        self.look_at = inf
        """When the clocks are looked at next (seconds of `time.monotonic`)."""
        self._execution = execution
        self._renew = renew
        self._due = False
        self._settled = asyncio.Event()
        self._handle: asyncio.TimerHandle | None = None

    def settled(self) -> bool:
        """Whether no handler runs but those that nothing stops."""
        return all(attempt.stuck for attempt in self.attempts.values())

    def fewer(self) -> None:
        """An attempt is gone, or stuck: wake `until_settled` if it was the last."""
        if self.settled():
            self._settled.set()

    async def until_settled(self, deadline: float) -> None:
        """Until no handler runs but those that nothing stops, or the deadline (seconds of `time.monotonic`) is over."""
        if not self.settled():
            self._settled.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), max(0.0, deadline - monotonic()))

    def look_by(self, due: float, now: float) -> None:
        """See to it that the clocks are looked at by then (seconds of `time.monotonic`)."""
        if due >= self.look_at:
            return
        self.close()
        self.look_at = due
        self._handle = asyncio.get_running_loop().call_later(max(0.0, due - now), self._look)

    def close(self) -> None:
        """Stop the timer."""
        if self._handle is not None:
            self._handle.cancel()

    def stop(self, token: int, stop: Stop, now: float) -> None:
        """The attempt's handler must stop, if it is held."""
        attempt = self.attempts.get(token)
        if attempt is None:
            return
        if stop is Stop.FENCED and attempt.stop is not Stop.FENCED:
            _log.warning("attempt %s of run %s is no longer ours: its handler is stopped", token, attempt.lease.run)
            attempt.renew_at = inf
        if attempt.must_stop(stop, now):
            self._execution.ask_to_stop(attempt)
            self.look_by(attempt.kill_at, now)

    def fill(self, request: ReportRequest) -> None:
        """Have the report renew what is due, or is before long (fewer, fuller reports), and tell progress."""
        if not self._due:
            return
        self._due = False
        now = monotonic()
        for attempt in self.attempts.values():
            if attempt.stop is Stop.FENCED:
                continue
            if attempt.renew_at - now < attempt.lease.lease_ms / 6000 and add_renewal(request, attempt):
                attempt.renew_at = inf
            if attempt.progress is not attempt.progress_sent:
                add_progress(request, attempt)

    def renewed(self, tokens: Iterable[int], sent_at: float) -> None:
        """The operator renewed them with a report that was sent at `sent_at`; it did so after that, so counting from
        then is never too long."""
        now = monotonic()
        for token in tokens:
            attempt = self.attempts.get(token)
            if attempt is not None and attempt.stop is not Stop.FENCED:
                attempt.lease_end = sent_at + attempt.lease.lease_ms / 1000
                attempt.renew_at = sent_at + attempt.lease.lease_ms / 3000
                self.look_by(attempt.renew_at, now)

    def _look(self) -> None:
        self.look_at, self._handle = inf, None
        now = monotonic()
        due = now + LOOK_SECONDS
        for token, attempt in list(self.attempts.items()):
            if attempt.stop is None:
                if now >= attempt.timeout_at:
                    self.stop(token, Stop.TIMEOUT, now)
                elif now >= attempt.lease_end:
                    run = attempt.lease.run
                    _log.warning("the lease of run %s was not renewed in time: its handler is stopped", run)
                    self.stop(token, Stop.LEASE_LOST, now)
            elif now >= attempt.kill_at:
                self._execution.kill(attempt, now)
                if attempt.stuck:
                    self.fewer()
            if now >= attempt.renew_at or attempt.progress is not attempt.progress_sent:
                self._due = True
                self._renew()
            timed = min(attempt.timeout_at, attempt.lease_end) if attempt.stop is None else attempt.kill_at
            due = min(due, timed, max(attempt.renew_at, now + 0.05))
        if self.attempts:
            self.look_by(due, now)
