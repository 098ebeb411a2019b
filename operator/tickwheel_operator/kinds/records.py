"""What the status of a ScheduledTask says of its earlier runs, for a ledger that does not know them.

Read for each event of the watch, in its thread. Whoever wrote it (this operator, another one before it, a tool that
restored a backup), it counts. Invariant: a status that cannot be read says nothing; it never stops the watch.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tickwheel_operator.engine.messages import StatusRecord
from tickwheel_operator.engine.triggers.instants import NO_INSTANT_MS, instant_of, is_instant
from tickwheel_operator.ledger.facts import SkipReason

__all__ = ["status_record"]

_REASONS = {reason.name.title().replace("_", ""): reason for reason in SkipReason}
_OPEN = ("Pending", "Running")


def status_record(name: str, status: Mapping[str, Any]) -> StatusRecord | None:
    """Of the task of this name; None: its status says nothing of earlier runs, or cannot be read."""
    try:
        return _read(name, status)
    except (TypeError, ValueError, AttributeError):
        return None


def _read(name: str, status: Mapping[str, Any]) -> StatusRecord | None:
    last_ms = _milliseconds(status.get("lastScheduleTime"))
    skips = tuple(
        (reason, int(skip.get("count") or 0), _milliseconds(skip.get("lastTime")))
        for skip in status.get("skips") or ()
        if (reason := _REASONS.get(skip.get("reason"))) is not None
    )
    settled_ms = max(_milliseconds(status.get("settledTime")), last_ms, *(until_ms for *_, until_ms in skips))
    if not is_instant(settled_ms):
        return None
    counters, newest = status.get("counters") or {}, status.get("lastRun") or {}
    is_open = newest.get("state") in _OPEN
    return StatusRecord(
        generation=int(status.get("observedGeneration") or 0),
        settled_ms=settled_ms,
        last_scheduled_ms=last_ms,
        last_ended_ms=0 if is_open else max(0, _milliseconds(newest.get("time"))),
        unfinished=is_open and newest.get("name") == f"{name}-{last_ms}",
        succeeded=int(counters.get("succeeded") or 0),
        failed=int(counters.get("failed") or 0),
        cancelled=int(counters.get("cancelled") or 0),
        skips=skips,
    )


def _milliseconds(time: object) -> int:
    return instant_of(datetime.fromisoformat(str(time))) if time else NO_INSTANT_MS
