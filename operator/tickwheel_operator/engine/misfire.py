"""Which overdue instants fire: one pure function, used after downtime, a late tick and a takeover alike.

An instant that is overdue by no more than the threshold is merely late and always fires. What is older has been
missed, and the task's policy decides.
"""

from __future__ import annotations

from collections import deque

import msgspec

from tickwheel_operator.engine.spec import Misfire, MisfirePolicy
from tickwheel_operator.engine.triggers import Trigger
from tickwheel_operator.ledger.facts import SkipReason

__all__ = ["COUNT_LIMIT", "Settlement", "Skip", "settle"]

COUNT_LIMIT = 100_000
"""Missed instants are counted up to here; more are reported as this many."""


class Skip(msgspec.Struct, frozen=True):
    """`count` instants up to and with `until_ms` make no run."""

    until_ms: int
    count: int
    reason: SkipReason


class Settlement(msgspec.Struct):
    """What becomes of all instants in a span: each one is in exactly one of the two lists."""

    fire: list[int]
    skipped: list[Skip]


def settle(trigger: Trigger, after_ms: int, now_ms: int, misfire: Misfire, threshold_ms: int) -> Settlement:
    """Settle every instant in `(after_ms, now_ms]`."""
    result = Settlement([], [])
    start = after_ms
    if misfire.starting_deadline_ms is not None:
        start = _skip(trigger, start, now_ms - misfire.starting_deadline_ms - 1, SkipReason.DEADLINE, result)
    missed_until = now_ms - threshold_ms - 1
    if missed_until > start:
        match misfire.policy:
            case MisfirePolicy.SKIP:
                start = _skip(trigger, start, missed_until, SkipReason.MISFIRED, result)
            case MisfirePolicy.FIRE_ONCE:
                latest = trigger.last_at_or_before(missed_until, start)
                if latest is not None:
                    _skip(trigger, start, latest - 1, SkipReason.COALESCED, result)
                    result.fire.append(latest)
                    start = latest
            case MisfirePolicy.FIRE_ALL:
                start = _fire_latest(trigger, start, missed_until, misfire.max_catch_up, result)
    instant = trigger.next_after(start)
    while instant is not None and instant <= now_ms:
        result.fire.append(instant)
        instant = trigger.next_after(instant)
    return result


def _skip(trigger: Trigger, after_ms: int, until_ms: int, reason: SkipReason, result: Settlement) -> int:
    """Skip the instants in `(after_ms, until_ms]`; returns the end of the settled span."""
    if until_ms <= after_ms:
        return after_ms
    count = trigger.count_between(after_ms, until_ms, COUNT_LIMIT)
    if count:
        result.skipped.append(Skip(until_ms, count, reason))
    return until_ms


def _fire_latest(trigger: Trigger, after_ms: int, until_ms: int, limit: int, result: Settlement) -> int:
    count = trigger.count_between(after_ms, until_ms, COUNT_LIMIT)
    if count == 0:
        return after_ms
    latest: deque[int] = deque(maxlen=limit)
    last = trigger.last_at_or_before(until_ms, after_ms)
    instant = last
    while instant is not None and len(latest) < limit:
        latest.appendleft(instant)
        instant = trigger.last_at_or_before(instant - 1, after_ms)
    if count > len(latest):
        until = (latest[0] - 1) if latest else until_ms
        result.skipped.append(Skip(until, count - len(latest), SkipReason.CATCH_UP_LIMIT))
    result.fire.extend(latest)
    return until_ms
