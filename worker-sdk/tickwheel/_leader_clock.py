"""What a link does with the clock of its leader: learns it from answers, tells it in pulls, and finds by it the instant
of an early lease.

`_link` owns one; the arithmetic is in `_clock`. Invariant: an early lease never begins before its instant as far as the
clock is known, whatever this machine's wall clock says.
"""

from __future__ import annotations

import logging
from math import ceil, inf
from time import monotonic, time_ns

from ._clock import OperatorClock
from ._protocol import ClockEstimate, Lease, PullAnswer, ReportAnswer

__all__ = ["LeaderClock"]

_log = logging.getLogger("tickwheel.worker")

_TOLD_SECONDS = 60.0  # how often the log tells what is known, and of jumps: a clock that NTP slews jumps at each answer


class LeaderClock:
    """The clock of the replica that one link talks to."""

    def __init__(self) -> None:
        self._clock = OperatorClock()
        self._told_at = -inf
        self._jump_told_at = -inf

    def forget(self) -> None:
        """Another leader, or another epoch of it, may be another machine."""
        self._clock.forget()

    def learn(self, answer: PullAnswer | ReportAnswer, sent_at: float, url: str) -> None:
        """From an answer that was just got; its request was sent at `sent_at` (seconds of `time.monotonic`)."""
        got_at = monotonic()
        fits = self._clock.exchange(
            sent=sent_at, received_us=answer.received_us, answered_us=answer.answered_us, got=got_at
        )
        if not fits and got_at - self._jump_told_at > _TOLD_SECONDS:
            self._jump_told_at = got_at
            _log.info("the clock of %s jumped, or ours did not run evenly: its offset is measured anew", url)

    def estimate(self, wall_us: int, url: str) -> ClockEstimate | None:
        """What is known, for a pull that is sent at `wall_us` of this machine's wall clock (microseconds)."""
        now = monotonic()
        known = self._clock.estimate(now)
        if known is None:
            return None
        offset, error = known
        estimate = ClockEstimate(offset_us=wall_us - int((now + offset) * 1e6), error_us=ceil(error * 1e6))
        if now - self._told_at > _TOLD_SECONDS:
            self._told_at = now
            ahead, wrong = estimate.offset_us / 1000, estimate.error_us / 1000
            _log.debug("this machine's clock is %.3f ms ahead of that of %s, to %.3f ms", ahead, url, wrong)
        return estimate

    def start_of(self, lease: Lease, answer: PullAnswer, now: float) -> float:
        """The instant of an early lease, in seconds of the monotonic clock. Where nothing is known of the operator's
        clock, it is counted from the answer that brought the lease: late by its way here, and never early."""
        known = self._clock.estimate(now)
        if known is not None:
            return lease.not_before_ms / 1000 - known[0]
        operator_us = answer.answered_us or answer.now_ms * 1000
        if not operator_us:
            operator_us, now = time_ns() // 1000, monotonic()
        return now + lease.not_before_ms / 1000 - operator_us / 1e6
