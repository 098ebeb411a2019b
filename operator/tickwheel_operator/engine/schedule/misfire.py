"""Which overdue instants fire: one pure function, used after downtime, a late tick and a takeover alike.

An instant that is overdue by no more than the threshold is merely late and always fires. What is older has been
missed, and the task's policy decides.
"""

from __future__ import annotations

import msgspec

from tickwheel_operator.engine.spec import Misfire, MisfirePolicy
from tickwheel_operator.engine.triggers import Trigger, counted_until, latest
from tickwheel_operator.ledger.facts import SkipReason

__all__ = ["Settlement", "Skip", "settle", "skipped"]

_COUNT_LIMIT = 2**53
"""No count comes here: it is arithmetic. Only calendars that refuse very many instants one by one end it early; then
it says how many there are at least."""


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
                start = _fire_latest(trigger, start, missed_until, 1, SkipReason.COALESCED, result)
            case MisfirePolicy.FIRE_ALL:
                most, reason = misfire.max_catch_up, SkipReason.CATCH_UP_LIMIT
                start = _fire_latest(trigger, start, missed_until, most, reason, result)
    instant = trigger.next_after(start)
    while instant is not None and instant <= now_ms:
        result.fire.append(instant)
        instant = trigger.next_after(instant)
    return result


def _skip(trigger: Trigger, after_ms: int, until_ms: int, reason: SkipReason, result: Settlement) -> int:
    """Skip the instants in `(after_ms, until_ms]`; returns the end of the settled span."""
    if until_ms <= after_ms:
        return after_ms
    if skip := skipped(trigger, after_ms, until_ms, reason):
        result.skipped.append(skip)
    return until_ms


def skipped(trigger: Trigger, after_ms: int, until_ms: int, reason: SkipReason) -> Skip | None:
    """What there is to count in `(after_ms, until_ms]`; None: no instant."""
    count = trigger.count_between(after_ms, until_ms, _COUNT_LIMIT)
    if not count:
        return None
    # Up to the last of them, for people; but where the count gave up, nobody knows which one is.
    last = latest(trigger, after_ms, until_ms, 1) if counted_until(trigger, after_ms, until_ms) == until_ms else []
    return Skip(last[0] if last else until_ms, count, reason)


def _fire_latest(
    trigger: Trigger, after_ms: int, until_ms: int, limit: int, reason: SkipReason, result: Settlement
) -> int:
    """Fire the last instants in `(after_ms, until_ms]`, and skip those before; returns the end of the settled span."""
    fire = latest(trigger, after_ms, until_ms, limit)
    _skip(trigger, after_ms, fire[0] - 1 if fire else until_ms, reason, result)
    result.fire.extend(fire)
    return until_ms
