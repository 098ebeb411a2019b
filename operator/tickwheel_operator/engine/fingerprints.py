"""Back from the fingerprint of a schedule to its trigger: what the ledger still knows of one that was edited away.

`engine.scheduler` asks for it when a trigger was changed while nobody led, to count what it leaves undone. The dates of
calendars are not in a fingerprint, so that instants on excluded days count too.
"""

from __future__ import annotations

import re
from datetime import datetime

from tickwheel_operator.engine.cron import CronError, UnknownZoneError
from tickwheel_operator.engine.filters import Filter
from tickwheel_operator.engine.instants import instant_of
from tickwheel_operator.engine.triggers import (
    CronTrigger,
    DailyIntervalTrigger,
    FilteredTrigger,
    FixedRateTrigger,
    OnceTrigger,
    Trigger,
)

__all__ = ["trigger_of"]

_INSTANT = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?)Z"
_CRON = re.compile(r"cron (.+) \((\S+)\)")
_FIXED_RATE = re.compile(rf"every (\S+) from {_INSTANT}")
_ONCE = re.compile(rf"once at {_INSTANT}")
_DAILY = re.compile(r"every (\S+) from ([\d:.]+) to ([\d:.]+)(?: on ([\w, ]+))? \((\S+)\)")
_BOUND = re.compile(rf"not (before|after) {_INSTANT}")
_SIZES = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def trigger_of(schedule: str, identity: str) -> Trigger | None:
    """The trigger that describes itself as `schedule`, as far as that tells; None: it makes no instants of time, or a
    later release wrote it. `identity` is what `H` in a cron expression is a hash of."""
    source, *modifiers = schedule.split("; ")
    try:
        base = _base(source, identity)
    except (CronError, UnknownZoneError, ValueError):
        return None
    bounds = {m[1]: _instant(m[2]) for text in modifiers if (m := _BOUND.fullmatch(text)) is not None}
    if base is None or not bounds:
        return base
    return FilteredTrigger(base, Filter(not_before_ms=bounds.get("before"), not_after_ms=bounds.get("after")))


def _base(text: str, identity: str) -> CronTrigger | FixedRateTrigger | OnceTrigger | DailyIntervalTrigger | None:
    if (found := _CRON.fullmatch(text)) is not None:
        return CronTrigger(found[1], found[2], identity if "H" in found[1].upper() else "")
    if (found := _FIXED_RATE.fullmatch(text)) is not None:
        return FixedRateTrigger(_duration(found[1]), _instant(found[2]))
    if (found := _ONCE.fullmatch(text)) is not None:
        return OnceTrigger(_instant(found[1]))
    if (found := _DAILY.fullmatch(text)) is not None:
        days = _WEEKDAYS if found[4] is None else found[4].split(", ")
        mask = sum(1 << _WEEKDAYS.index(day) for day in days)
        return DailyIntervalTrigger(_duration(found[1]), _clock(found[2]), _clock(found[3]), mask, found[5])
    return None


def _instant(text: str) -> int:
    return instant_of(datetime.fromisoformat(f"{text}Z"))


def _duration(text: str) -> int:
    return sum(int(count) * _SIZES[unit] for count, unit in re.findall(r"(\d+)(ms|[dhms])", text))


def _clock(text: str) -> int:
    hours, minutes, seconds = (*text.split(":"), "0")[:3]
    return (int(hours) * 60 + int(minutes)) * 60_000 + round(float(seconds) * 1000)
