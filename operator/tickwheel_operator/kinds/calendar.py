"""Calendar: the dates and times that the triggers of tasks leave out, or fire on alone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from msgspec.structs import replace

from tickwheel_operator import reasons
from tickwheel_operator.api.calendar import Calendar
from tickwheel_operator.api.faults import FieldFault, InvalidManifest
from tickwheel_operator.api.text import DateRange, Weekday
from tickwheel_operator.engine.cron import CronError, CronSchedule, UnknownZoneError, parse, zone_named
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.kinds.conditions import Words
from tickwheel_operator.kinds.descriptor import Kind
from tickwheel_operator.kinds.seen import Seen

__all__ = ["CALENDAR", "SeenCalendar", "compile_calendar"]

_WEEKDAYS = tuple(Weekday)


class SeenCalendar(Seen, frozen=True, kw_only=True):
    dates: CalendarDates | None = None
    """None: it is faulty."""


class _CalendarKind(Kind[Calendar, SeenCalendar]):
    accepted: Words = ("True", reasons.ACCEPTED, "triggers may name it")
    kept = ("dates",)

    def compile(self, seen: SeenCalendar, manifest: Calendar) -> SeenCalendar:
        return replace(seen, dates=compile_calendar(manifest))

    def named_by(self, task: TaskSpec) -> Iterable[str]:
        return [use.name for use in task.calendars]

    def concerns(self, before: SeenCalendar | None, after: SeenCalendar | None) -> bool:
        return before is None or after is None or before.dates != after.dates


CALENDAR = _CalendarKind(Calendar, SeenCalendar)


def compile_calendar(calendar: Calendar) -> CalendarDates:
    """The dates as the filters of triggers want them.

    Raises
    ------
    InvalidManifest
        The zone is not known, or a cron expression cannot be read or matches no time at all.
    """
    spec = calendar.spec
    zone_name = str(spec.time_zone)
    try:
        zone_named(zone_name)
    except UnknownZoneError as error:
        raise _fault("spec.timeZone", str(error)) from error
    identity = f"{calendar.metadata.namespace}/{calendar.metadata.name}"
    return CalendarDates(
        calendar.metadata.name,
        zone_name=zone_name,
        dates=[_dates(dates) for dates in spec.dates],
        weekdays=[_WEEKDAYS.index(day) for day in spec.weekdays],
        crons=[_cron(str(cron), place, identity) for place, cron in enumerate(spec.crons)],
    )


def _dates(text: DateRange) -> tuple[date, date]:
    first, _, last = text.partition("/")
    return date.fromisoformat(first), date.fromisoformat(last or first)


def _cron(expression: str, place: int, identity: str) -> CronSchedule:
    path = f"spec.crons[{place}]"
    try:
        schedule = parse(expression, identity=identity)
    except CronError as error:
        raise _fault(path, str(error)) from error
    if schedule.impossible:
        raise _fault(path, f"{expression!r} names no time: no date matches all of its fields")
    return schedule


def _fault(path: str, message: str) -> InvalidManifest:
    return InvalidManifest([FieldFault(path, message)])
