"""The days that an iCalendar file (RFC 5545) names, for `tickwheel calendar import`.

The library reads the format; here stands what a day is. An all-day event is its dates, the end exclusive; one that
lasts from midnight to midnight, as older versions of Outlook write it, is the same. Recurring events are expanded
within the span that was asked for, without what is excluded, moved or cancelled. An event with other times is no day:
it is handed back apart, and the caller decides. Invariant: an event that cannot be read is an error, never left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulebase, rrulestr  # type: ignore[import-untyped]
from icalendar import Calendar, Event, vRecur

from tickwheel_operator.engine.cron import UnknownZoneError, zone_named

__all__ = ["Days", "IcsError", "days_of", "joined"]

_DAY = timedelta(days=1)
_DAILY_RULES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_DECIDING = {"DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID", "STATUS"}
"""Properties that decide which days an event has."""
_UNTIL = re.compile(r"UNTIL=[^;]*", re.IGNORECASE)
_NO_MARKS = str.maketrans("", "", "-:")
_FURTHEST_ZONES = 2 * _DAY
"""More than the clocks of any two zones differ by."""


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
            found.zone_name = _zone_name(calendar) or found.zone_name
            found.zone = _zone(found.zone_name)
    if not calendars:
        raise IcsError("it is no iCalendar file: it has no VCALENDAR")
    zone = zone_named(zone_name or found.zone or "UTC")
    events = [event for calendar in calendars for event in calendar.walk("VEVENT") if isinstance(event, Event)]
    for event in events:
        _refuse_unreadable(event)
    moved: dict[str, list[date]] = {}
    for event in events:
        if "RECURRENCE-ID" in event:
            moved.setdefault(str(event.get("UID")), []).append(_stands_for(event))
    for event in events:
        found.events += 1
        if str(event.get("STATUS", "")).upper() == "CANCELLED":
            continue
        elsewhere = [] if "RECURRENCE-ID" in event else moved.get(str(event.get("UID")), [])
        try:
            _take(event, elsewhere, found, first, last, zone)
        except OverflowError as error:
            raise IcsError(f"'{_title(event)}' has a date outside of the years 1 to 9999") from error
    return found


def _take(event: Event, elsewhere: list[date], found: Days, first: date, last: date, zone: ZoneInfo) -> None:
    """Take the days of an event, but for the occurrences that other events stand for."""
    series = _series(event, zone)
    occurrences = series.without(series.occurrences(first, last), [*event.exdates, *elsewhere])
    for at, length in occurrences.items():
        begin, until, whole_days = series.span(at, length)
        low, high = max(begin, first), min(until, last)
        touched = {low + _DAY * number for number in range((high - low).days + 1)}
        if whole_days:
            found.days |= touched
        elif touched:
            found.timed.setdefault(_title(event), set()).update(touched)


def joined(days: set[date]) -> list[str]:
    """Dates, and ranges of dates that follow on each other, as a Calendar writes them."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(days):
        if ranges and day - ranges[-1][1] == _DAY:
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return [f"{begin}" if begin == end else f"{begin}/{end}" for begin, end in ranges]


def _zone_name(calendar: Calendar) -> str:
    """The zone that a calendar says it is for: as publishers do, or by the only one that it defines."""
    if stated := str(calendar.get("X-WR-TIMEZONE", "")).strip():
        return stated
    defined = {str(zone.get("TZID", "")).strip() for zone in calendar.walk("VTIMEZONE")}
    return defined.pop() if len(defined) == 1 else ""


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
    if "EXRULE" in event:
        raise IcsError(
            f"'{_title(event)}' has an EXRULE, which RFC 5545 does not know any more; name the dates in an EXDATE"
        )


@dataclass(frozen=True, slots=True)
class _Series:
    """The occurrences of one event, by the clock of its own time zone: without a zone, as that clock shows them.

    Each date property of the event comes through here, so that all of them are in one zone before they are compared.
    """

    event: Event
    own: tzinfo
    """The zone of DTSTART; of an all-day event and of one without a zone, that of the days."""
    zone: ZoneInfo
    """The zone that days begin and end in."""
    all_day: bool
    begin: datetime
    length: timedelta

    def on_own_clock(self, value: date, *, bare_date_at: time = time()) -> datetime:
        """What the event's own clock shows at this value; a date without a time is this time of that day."""
        return _on_clock(value, self.own, bare_date_at)

    def on_days_clock(self, moment: datetime) -> datetime:
        """When the day of an occurrence begins is for its own zone to say. Only UTC is nobody's clock."""
        if self.own is UTC:
            return moment.replace(tzinfo=UTC).astimezone(self.zone).replace(tzinfo=None)
        return moment

    def occurrences(self, first: date, last: date) -> dict[datetime, timedelta]:
        """When those that may touch the span begin, and how long each is."""
        begin, end = _shifted(first, -self.length - _FURTHEST_ZONES), _shifted(last, _FURTHEST_ZONES)
        found = {self.begin: self.length}
        for rule in self.event.rrules:
            found |= dict.fromkeys(self._expanded(rule).between(begin, end, inc=True), self.length)
        for added, until in self.event.rdates:
            at = self.on_own_clock(added, bare_date_at=self.begin.time())
            found[at] = self.length if until is None else self.on_own_clock(until) - at
        return found

    def without(self, found: dict[datetime, timedelta], excluded: Iterable[date]) -> dict[datetime, timedelta]:
        """The occurrences but for those excluded: a time excludes what begins then, a date what begins on it."""
        days, moments = set(), set()
        for value in excluded:
            if self.all_day or not isinstance(value, datetime):
                days.add(self.on_own_clock(value).date())
            else:
                moments.add(self.on_own_clock(value))
        return {at: length for at, length in found.items() if at not in moments and at.date() not in days}

    def span(self, at: datetime, length: timedelta) -> tuple[date, date, bool]:
        """The first and the last day of an occurrence, and whether they are whole days."""
        begin, until = self.on_days_clock(at), self.on_days_clock(at + length)
        whole = self.all_day or (begin.time() == time() == until.time() and until > begin)
        last = until - timedelta(microseconds=1) if until > begin else begin
        return begin.date(), last.date(), whole

    def _expanded(self, rule: vRecur) -> rrulebase:
        text: str = rule.to_ical().decode()  # type: ignore[no-untyped-call]
        frequency = str(rule.get("FREQ", [""])[0]).upper()
        if frequency not in _DAILY_RULES:
            raise IcsError(f"the RRULE of '{_title(self.event)}' names no days: {text}")
        for until in rule.get("UNTIL", [])[:1]:
            # The parser wants an end of the same sort as the beginning; a date alone means that whole day.
            moment = self.on_own_clock(until, bare_date_at=time(23, 59, 59))
            text = _UNTIL.sub(f"UNTIL={moment.isoformat(timespec='seconds').translate(_NO_MARKS)}", text)
        try:
            return rrulestr(text, dtstart=self.begin)
        except ValueError as error:
            raise IcsError(f"the RRULE of '{_title(self.event)}' cannot be read: {text}: {error}") from error


def _on_clock(value: date, zone: tzinfo, bare_date_at: time = time()) -> datetime:
    if not isinstance(value, datetime):
        return datetime.combine(value, bare_date_at)
    return value if value.tzinfo is None else value.astimezone(zone).replace(tzinfo=None)


def _series(event: Event, zone: ZoneInfo) -> _Series:
    try:
        start = event.start
        end = event.end
    except ValueError as error:
        raise IcsError(f"'{_title(event)}' has no readable beginning and end: {error}") from error
    if not isinstance(start, datetime) and not isinstance(end, datetime):
        # Some write the last day as the end of an event of one day, though it is exclusive.
        length = max(_DAY, end - start)
        return _Series(event, zone, zone, True, datetime.combine(start, time()), length)
    own: tzinfo = zone
    if isinstance(start, datetime) and start.tzinfo is not None:
        own = UTC if start.tzname() == "UTC" and start.utcoffset() == timedelta() else start.tzinfo
    instant = _Series(event, own, zone, False, _on_clock(start, own), timedelta())
    return replace(instant, length=max(timedelta(), instant.on_own_clock(end) - instant.begin))


def _shifted(day: date, by: timedelta) -> datetime:
    """Midnight of the day, moved; no further than there are dates."""
    try:
        return datetime.combine(day, time()) + by
    except OverflowError:
        return datetime.combine(date.max if by > timedelta() else date.min, time())


def _stands_for(event: Event) -> date:
    """The occurrence that this event stands for instead."""
    occurrence: date | None = event.RECURRENCE_ID
    if occurrence is None or event["RECURRENCE-ID"].params.get("RANGE"):
        raise IcsError(f"'{_title(event)}' has a RECURRENCE-ID that cannot be read, or one for all that follows it")
    return occurrence
