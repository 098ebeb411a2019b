"""Instants: the one range that they may have, and the one place where they are written and read as text.

An instant is an integer of milliseconds since the Unix epoch, UTC. Its text is RFC 3339, whose years have four digits:
so an instant is in the years 1 to 9999 in UTC, wherever a user may write one, and triggers end there.
Invariants: what is written can be read by every reader of RFC 3339, also where arithmetic went past the range.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

__all__ = ["FIRST_MS", "LAST_MS", "NO_INSTANT_MS", "by_clock_of", "instant_of", "is_instant", "timestamp"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
FIRST_MS = -62_135_596_800_000
"""0001-01-01T00:00:00Z."""
LAST_MS = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z."""
NO_INSTANT_MS = FIRST_MS - 1
"""Earlier than any instant."""


def is_instant(instant_ms: int) -> bool:
    """Whether it is in the years 1 to 9999 in UTC."""
    return FIRST_MS <= instant_ms <= LAST_MS


def timestamp(instant_ms: int) -> str:
    """Write an instant as RFC 3339 in UTC, with milliseconds where it has any.

    Sums may lie past the range (a delay that ends in the year 10000): then the range's last instant is written.
    """
    moment = _utc(instant_ms)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds" if moment.microsecond else "seconds") + "Z"


def instant_of(moment: datetime) -> int:
    """Return the instant of a time with its offset; what is below a millisecond is cut off.

    Raises
    ------
    ValueError
        It is outside of the years 1 to 9999 in UTC.
    """
    try:
        instant_ms = (moment - _EPOCH) // _MILLISECOND
    except OverflowError:  # of a zone's own arithmetic
        instant_ms = LAST_MS + 1
    if not is_instant(instant_ms):
        raise ValueError(f"{moment.isoformat()} is outside of the years 1 to 9999 in UTC")
    return instant_ms


def by_clock_of(zone: tzinfo | None, instant_ms: int) -> datetime:
    """Return what the clocks of a zone show, with its offset; None is the machine's zone. In UTC, where the zone's
    clocks show the year 0 or 10000."""
    moment = _utc(instant_ms)
    try:
        return moment.astimezone(zone)
    except (OverflowError, ValueError):
        return moment


def _utc(instant_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=min(max(instant_ms, FIRST_MS), LAST_MS))
