"""Calendar (`twc`): dates and times that triggers exclude or include. Invariant: it names at least one date."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from tickwheel_operator.api.conditions import Conditions, ObservedGeneration
from tickwheel_operator.api.faults import FieldFault
from tickwheel_operator.api.meaning import of_cron, of_zone
from tickwheel_operator.api.resource import AGE, READY, Column, Presentation, Resource
from tickwheel_operator.api.schema import ListOf, Model, Rule
from tickwheel_operator.api.text import CronExpression, DateRange, TimeZone
from tickwheel_operator.api.trigger import Weekdays

__all__ = ["Calendar", "CalendarSpec", "CalendarStatus"]


class CalendarSpec(Model):
    """The dates: whatever any of the three lists names."""

    rules = (
        Rule(
            "(has(self.dates) && size(self.dates) > 0) || (has(self.weekdays) && size(self.weekdays) > 0) || "
            "(has(self.crons) && size(self.crons) > 0)",
            "at least one of dates, weekdays, crons must have an entry",
            lambda calendar: bool(calendar.dates or calendar.weekdays or calendar.crons),
        ),
    )

    time_zone: TimeZone = TimeZone("UTC")
    """The IANA time zone that a day begins and ends in."""
    dates: Annotated[tuple[DateRange, ...], ListOf(most=2_000, unique=True)] = ()
    """Dates and ranges of dates, in quotes: `["2026-10-01", "2026-10-02/2026-10-07"]`."""
    weekdays: Weekdays = ()
    """Mon, Tue, Wed, Thu, Fri, Sat, Sun."""
    crons: Annotated[tuple[CronExpression, ...], ListOf(most=100, unique=True)] = ()
    """Cron expressions; each second that matches is in the calendar: `["* * 0-6 * * *"]` is midnight to seven."""


class CalendarStatus(Model):
    """What the operator made of it."""

    observed_generation: ObservedGeneration | None = None
    """The generation that this status speaks of."""
    conditions: Conditions = ()
    """Ready, Reconciling, Stalled (the message names the field to mend)."""


class Calendar(Resource):
    """Dates and times on which triggers do not fire, or on which alone they do."""

    presentation: ClassVar[Presentation] = Presentation(
        plural="calendars",
        short="twc",
        columns=(Column(name="Zone", path=".spec.timeZone", description="The zone of its days"), READY, AGE),
    )
    status_model: ClassVar[type[Model] | None] = CalendarStatus
    name_limit: ClassVar[int] = 63

    kind: Literal["Calendar"] = "Calendar"
    spec: CalendarSpec

    def faults_of_meaning(self) -> Iterator[FieldFault]:
        yield from of_zone(self.spec.time_zone, "spec.timeZone")
        for position, expression in enumerate(self.spec.crons):
            yield from of_cron(expression, f"spec.crons[{position}]", self.identity, self.spec.time_zone)
