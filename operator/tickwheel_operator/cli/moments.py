"""Times on the command line, as people write and read them.

`MOMENT` reads an option: RFC 3339, or a date or local time without an offset, which is then read in the zone of what
the command is about. `utc`, `local` and `distance` write an instant: milliseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

import click

from tickwheel_operator.engine.triggers import spell_duration

__all__ = ["MOMENT", "distance", "local", "moment_at", "moment_ms", "utc"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_SHAPE = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]|[+-]\d{2}:\d{2})?)?", re.ASCII)


class Moment(click.ParamType[datetime]):
    """A time with its offset, or a local one without."""

    name = "time"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if not _SHAPE.fullmatch(value):
                raise ValueError
            moment = datetime.fromisoformat(value.upper())
            moment_ms(moment, UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time; write for example 2026-11-01T09:00:00Z, 2026-11-01T09:00:00+08:00, or "
                "without an offset 2026-11-01T09:00 or 2026-11-01, which are read in the task's time zone",
                param,
                ctx,
            )
        return moment


MOMENT = Moment()


def moment_ms(moment: datetime, zone: tzinfo) -> int:
    """The instant; `zone` counts where the moment has no offset. Of a local time that occurs twice, the first."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return (moment.astimezone(UTC) - _EPOCH) // _MILLISECOND


def moment_at(instant_ms: int) -> datetime:
    """The instant as a time in UTC. Raises OverflowError past the year 9999."""
    return _EPOCH + timedelta(milliseconds=instant_ms)


def utc(instant_ms: int) -> str:
    """RFC 3339 in UTC: `2026-11-01T09:00:00Z`, with milliseconds where there are some."""
    return _iso(moment_at(instant_ms).replace(tzinfo=None), instant_ms) + "Z"


def local(instant_ms: int, zone: tzinfo) -> str:
    """By the clock of the zone, with weekday and the zone's own letters: `Sun 2026-10-25 02:30:00 CEST`."""
    moment = moment_at(instant_ms).astimezone(zone)
    written = _iso(moment.replace(tzinfo=None), instant_ms).replace("T", " ")
    return f"{moment:%a} {written} {moment.tzname()}"


def distance(instant_ms: int, now_ms: int) -> str:
    """How far away it is, in two units: `in 3d4h`, `2m5s ago`."""
    away_ms = abs(instant_ms - now_ms)
    for unit_ms, shown_ms in ((86_400_000, 3_600_000), (3_600_000, 60_000), (1_000, 1_000)):
        if away_ms >= unit_ms:
            away_ms -= away_ms % shown_ms
            break
    text = spell_duration(away_ms) or "0s"
    return f"in {text}" if instant_ms >= now_ms else f"{text} ago"


def _iso(naive: datetime, instant_ms: int) -> str:
    return naive.isoformat(timespec="milliseconds" if instant_ms % 1_000 else "seconds")
