"""Back from the fingerprint of a schedule to its trigger: what the ledger still knows of one that was edited away.

`engine.edits` asks for it when a trigger was changed while nobody led, to count what it leaves undone. The dates of
calendars are not in a fingerprint, so that instants on excluded days count too.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tickwheel_operator.engine.cron import CronError, UnknownZoneError
from tickwheel_operator.engine.triggers import (
    AnyTrigger,
    CronTrigger,
    DailyIntervalTrigger,
    FilteredTrigger,
    FixedRateTrigger,
    OnceTrigger,
    Trigger,
)
from tickwheel_operator.engine.triggers.filters import Filter

__all__ = ["trigger_of"]


def trigger_of(schedule: str) -> Trigger | None:
    """The trigger with this fingerprint (`TaskSpec.schedule`), in its normal form; None: it makes no instants of time,
    or another release wrote it."""
    try:
        match msgspec.json.decode(schedule):
            case ["filtered", form, not_before_ms, not_after_ms, _, _]:
                base = _base(form)
                if base is None or (not_before_ms is None and not_after_ms is None):
                    return base
                return FilteredTrigger(base, Filter(not_before_ms=not_before_ms, not_after_ms=not_after_ms))
            case form:
                return _base(form)
    except (CronError, UnknownZoneError, ValueError, msgspec.DecodeError):
        return None


def _base(form: Any) -> AnyTrigger | None:
    match form:
        case ["cron", str(text), str(zone_name)]:
            return CronTrigger(text, zone_name)
        case ["fixedRate", int(period_ms), int(anchor_ms)]:
            return FixedRateTrigger(period_ms, anchor_ms)
        case ["once", int(at_ms)]:
            return OnceTrigger(at_ms)
        case ["dailyInterval", int(every_ms), int(from_ms), int(to_ms), int(days), str(zone_name)]:
            return DailyIntervalTrigger(every_ms, from_ms, to_ms, days, zone_name)
    return None
