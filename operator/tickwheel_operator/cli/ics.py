"""The days that an iCalendar file (RFC 5545) names, for `tickwheel calendar import`.

The library reads the format; here stands what a day is. An all-day event is its dates, the end exclusive; one that
lasts from midnight to midnight, as older versions of Outlook write it, is the same. Recurring events are expanded
within the span that was asked for, without what is excluded, moved or cancelled. An event with other times is no day:
it is handed back apart, and the caller decides. Invariant: an event that cannot be read is an error, never left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulestr  # type: ignore[import-untyped]
from icalendar import Calendar, Event

from tickwheel_operator.engine.cron import UnknownZoneError, zone_named

__all__ = ["Days", "IcsError", "days_of", "joined"]

_DAY = timedelta(days=1)
_DAILY_RULES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_DECIDING = {"DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID", "STATUS"}
"""Properties that decide which days an event has."""
_UNTIL = re.compile(r"UNTIL=(\d{8})(T\d{6}Z?)?", re.IGNORECASE)


class IcsError(ValueError):
    """The file, or an event of it, cannot be read. The message names it."""


@dataclass(slots=True)
class Days:
    """What a file names in a span."""

    zone: str = ""
    """The time zone that the file says it is for; empty: it names none that is known."""
    zone_name: str = ""
    """How it spells it; empty: it names none."""
    days: set[date] = field(default_factory=set)
    timed: dict[str, set[date]] = field(default_factory=dict)
    """The days that events with times of day touch, by the event's title."""
    events: int = 0


def days_of(text: str, first: date, last: date, zone_name: str | None) -> Days:
    """The days from `first` to `last`, both included, of all events. Raises `IcsError`.

    `zone_name` is the zone that days begin and end in; None: that of the file, else UTC.
    """
    try:
        calendars = Calendar.from_ical(text, multiple=True)
    except ValueError as error:
        raise IcsError(f"it is no iCalendar file: {error}") from error
    found = Days()
    for calendar in calendars:
        if calendar.name != "VCALENDAR":
            raise IcsError(f"it is no iCalendar file: it has a {calendar.name}, not a VCALENDAR")
        if not found.zone:
            found.zone_name = str(calendar.get("X-WR-TIMEZONE", "")).strip() or found.zone_name
            found.zone = _zone(found.zone_name)
    if not calendars:
        raise IcsError("it is no iCalendar file: it has no VCALENDAR")
    zone = zone_named(zone_name or found.zone or "UTC")
    events = [event for calendar in calendars for event in calendar.walk("VEVENT") if isinstance(event, Event)]
    for event in events:
        _refuse_unreadable(event)
    moved = {(str(event.get("UID")), _moved_from(event, zone)) for event in events if "RECURRENCE-ID" in event}
    for event in events:
        found.events += 1
        if str(event.get("STATUS", "")).upper() == "CANCELLED":
            continue
        start, length, whole_days = _span(event, zone)
        own = str(event.get("UID"))
        instance = "RECURRENCE-ID" in event
        for begin in _occurrences(event, start, length, first, last, zone):
            if not instance and (own, begin) in moved:
                continue
            low, high = max(begin, first), min(begin + _DAY * (length - 1), last)
            touched = {low + _DAY * number for number in range((high - low).days + 1)}
            if whole_days:
                found.days |= touched
            elif touched:
                found.timed.setdefault(_title(event), set()).update(touched)
    return found


def joined(days: set[date]) -> list[str]:
    """Dates, and ranges of dates that follow on each other, as a Calendar writes them."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(days):
        if ranges and day - ranges[-1][1] == _DAY:
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return [f"{begin}" if begin == end else f"{begin}/{end}" for begin, end in ranges]


def _zone(name: str) -> str:
    try:
        return zone_named(name).key if name else ""
    except UnknownZoneError:
        return ""


def _title(event: Event) -> str:
    return " ".join(str(event.get("SUMMARY") or event.get("UID") or "an event without a title").split())


def _refuse_unreadable(event: Event) -> None:
    for name, problem in event.errors:
        if name is None or name in _DECIDING:
            raise IcsError(f"the {name or 'event'} of '{_title(event)}' cannot be read: {problem}")


def _span(event: Event, zone: ZoneInfo) -> tuple[date, int, bool]:
    """The first day, the number of days, and whether they are whole days."""
    try:
        start = event.start
        end = event.end
    except ValueError as error:
        raise IcsError(f"'{_title(event)}' has no readable beginning and end: {error}") from error
    if not isinstance(start, datetime) and not isinstance(end, datetime):
        # Some write the last day as the end of an event of one day, though it is exclusive.
        return start, max(1, (end - start).days), True
    begin, until = _local(start, zone), _local(end, zone)
    if begin.time() == time() == until.time() and until > begin:
        return begin.date(), (until.date() - begin.date()).days, True
    last = until - timedelta(microseconds=1) if until > begin else begin
    return begin.date(), (last.date() - begin.date()).days + 1, False


def _local(moment: date, zone: ZoneInfo) -> datetime:
    """By the clock of the event's own zone; a time in UTC, by that of the calendar's."""
    if not isinstance(moment, datetime):
        return datetime.combine(moment, time())
    if moment.tzinfo is not None and moment.utcoffset() == timedelta(0) and moment.tzname() == "UTC":
        moment = moment.astimezone(zone)
    return moment.replace(tzinfo=None)


def _occurrences(event: Event, start: date, length: int, first: date, last: date, zone: ZoneInfo) -> set[date]:
    """The first days of the occurrences that touch the span."""
    earliest = date.fromordinal(max(1, first.toordinal() - length + 1))
    starts = {start} if earliest <= start <= last else set()
    for rule in event.rrules:
        text = rule.to_ical().decode()
        frequency = str(rule.get("FREQ", [""])[0]).upper()
        if frequency not in _DAILY_RULES:
            raise IcsError(f"the RRULE of '{_title(event)}' names no days: {text}")
        # Days have no zone, and the parser wants an end of the same sort as the beginning.
        text = _UNTIL.sub(r"UNTIL=\1T235959", text)
        try:
            expanded = rrulestr(text, dtstart=datetime.combine(start, time()))
        except ValueError as error:
            raise IcsError(f"the RRULE of '{_title(event)}' cannot be read: {text}: {error}") from error
        begin, end = datetime.combine(earliest, time()), datetime.combine(last, time())
        starts |= {moment.date() for moment in expanded.between(begin, end, inc=True)}
    starts |= {day for day in (_local(added, zone).date() for added, _ in event.rdates) if earliest <= day <= last}
    return starts - {_local(excluded, zone).date() for excluded in event.exdates}


def _moved_from(event: Event, zone: ZoneInfo) -> date:
    """The day of the occurrence that this event stands for instead."""
    stands_for = event.RECURRENCE_ID
    if stands_for is None or event["RECURRENCE-ID"].params.get("RANGE"):
        raise IcsError(f"'{_title(event)}' has a RECURRENCE-ID that cannot be read, or one for all that follows it")
    return _local(stands_for, zone).date()
