"""Times on the command line, as people write and read them.

`MOMENT` reads an option: RFC 3339, or a date or local time without an offset, which is then read in the zone of what
the command is about. `local` and `distance` write an instant for people: milliseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

import click

from tickwheel_operator.engine.cron import instant_of_local
from tickwheel_operator.engine.triggers.instants import by_clock_of, instant_of
from tickwheel_operator.engine.triggers.spelling import spell_duration

__all__ = ["MOMENT", "distance", "local", "moment_ms"]

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
        except ValueError:
            self.fail(
                f"{value!r} is no time; write for example 2026-11-01T09:00:00Z, 2026-11-01T09:00:00+08:00, or "
                "without an offset 2026-11-01T09:00 or 2026-11-01, which are read in the task's time zone",
                param,
                ctx,
            )
        return moment


MOMENT = Moment()


def moment_ms(moment: datetime, zone: tzinfo) -> int:
    """The instant; `zone` counts where the moment has no offset. A local time is resolved as a trigger's: of one that
    occurs twice, the first; of one that a gap skips, the end of the gap."""
    if moment.tzinfo is None:
        found = instant_of_local(instant_of(moment.replace(tzinfo=UTC)), zone)
        if found is not None:
            return found
        moment = moment.replace(tzinfo=zone)
    try:
        return instant_of(moment)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def local(instant_ms: int, zone: tzinfo) -> str:
    """By the clock of the zone, with weekday and the zone's own letters: `Sun 2026-10-25 02:30:00 CEST`."""
    moment = by_clock_of(zone, instant_ms)
    precision = "milliseconds" if instant_ms % 1_000 else "seconds"
    written = moment.replace(tzinfo=None).isoformat(" ", timespec=precision)
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
