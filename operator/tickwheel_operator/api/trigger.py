"""`spec.trigger`: when a task or a workflow fires. One vocabulary for both.

Controllers turn a valid trigger into the engine's trigger values. Invariant: at most one of the six
sources is set; everything else in here modifies it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tickwheel_operator.api.schema import ListOf, Model, Rule, at_most_one, exactly_one
from tickwheel_operator.api.text import (
    Choice,
    ClockTime,
    CronExpression,
    DelayInterval,
    Duration,
    Instant,
    Label,
    ObjectName,
    RateInterval,
    TimeZone,
    Weekday,
)

__all__ = [
    "CalendarRule",
    "CalendarUse",
    "Completion",
    "DailyInterval",
    "Once",
    "Outcome",
    "Trigger",
    "Weekdays",
    "Window",
]

SOURCES = ("cron", "fixedRate", "fixedDelay", "dailyInterval", "once", "completion")

Weekdays = Annotated[tuple[Weekday, ...], ListOf(most=7, unique=True)]


class Outcome(Choice):
    """How the other task's run ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    ANY = "Any"


class CalendarRule(Choice):
    """What a calendar's dates mean for the trigger."""

    EXCLUDE = "Exclude"
    INCLUDE = "Include"


class DailyInterval(Model):
    """Every so often between two times of day."""

    rules = (
        Rule(
            "(self.from + ':00').substring(0, 8) != (self.to + ':00').substring(0, 8)",
            "from and to must differ",
            lambda daily: daily.from_.milliseconds != daily.to.milliseconds,
        ),
    )

    every: RateInterval
    """The interval, counted from `from` on each day: `15m`. 10 ms to 24 h."""
    from_: Annotated[ClockTime, Field(alias="from")]
    """The first instant of the day, by the clock of `timeZone`: `"08:00"` (in quotes)."""
    to: ClockTime
    """No instant at or after this time of day; before `from`: the span goes on past midnight."""
    days: Weekdays = ()
    """The weekdays: Mon, Tue, Wed, Thu, Fri, Sat, Sun. Default: every day."""


class Once(Model):
    """A single instant."""

    rules = (exactly_one("at", "after"),)

    at: Instant | None = None
    """The instant, RFC 3339: `2026-12-24T18:00:00Z`. In the past: the misfire policy decides."""
    after: Duration | None = None
    """So long after the object was created: `10m`."""


class Completion(Model):
    """The end of another task's run."""

    task: ObjectName
    """A ScheduledTask of the same namespace."""
    outcome: Outcome = Outcome.SUCCEEDED
    """Which ends count: Succeeded, Failed or Any."""


class Window(Model):
    """The span in which the trigger is live."""

    rules = (
        Rule(
            "!has(self.notBefore) || !has(self.notAfter) || self.notBefore < self.notAfter",
            "notBefore must be before notAfter",
            lambda window: (
                window.not_before is None
                or window.not_after is None
                or window.not_before.milliseconds < window.not_after.milliseconds
            ),
        ),
    )

    not_before: Instant | None = None
    """No instant before this one. Default: no limit."""
    not_after: Instant | None = None
    """No instant after this one. Default: no limit."""


class CalendarUse(Model):
    """A Calendar that the trigger honours."""

    name: Label
    """A Calendar of the same namespace."""
    rule: CalendarRule = CalendarRule.EXCLUDE
    """Exclude: no instant on its dates. Include: instants on its dates only."""


class Trigger(Model):
    """When it fires."""

    rules = (
        at_most_one(*SOURCES),
        Rule(
            "!has(self.anchor) || has(self.fixedRate)",
            "anchor may be set together with fixedRate only",
            lambda trigger: trigger.anchor is None or trigger.fixed_rate is not None,
        ),
    )

    cron: CronExpression | None = None
    """A cron expression: 5 fields (minute, hour, day of month, month, day of week) or 6 with the seconds first, or
    a macro such as `@daily`. `0 9 * * MON-FRI` fires at nine on weekdays, `*/10 * * * * *` every ten seconds. Knows
    names, ranges, steps, lists, `L`, `W`, `#` and `H`. Where day of month and day of week are both restricted (no `*`
    or `?` in them), either matches. Evaluated in `timeZone`; a time that a daylight-saving change skips fires once
    after the gap, one that happens twice fires the first time only. But where minute or hour has a wildcard or steps
    over several values, it follows the clock: times that are skipped do not fire, and those that happen twice fire
    twice."""
    fixed_rate: RateInterval | None = None
    """A steady interval from `anchor`, however long the runs take: `500ms`, `90s`. 10 ms up."""
    fixed_delay: DelayInterval | None = None
    """The pause between the end of a run and the start of the next: `30s`. 1 s up."""
    daily_interval: DailyInterval | None = None
    """Every so often between two times of day, on chosen weekdays."""
    once: Once | None = None
    """A single instant: `{at: "2026-12-24T18:00:00Z"}`, or `{after: 10m}` from the object's creation."""
    completion: Completion | None = None
    """The end of a run of another task."""
    time_zone: TimeZone = TimeZone("UTC")
    """The IANA time zone that `cron` and `dailyInterval` are read in: `Asia/Shanghai`."""
    anchor: Instant | None = None
    """An instant of the `fixedRate`, from which all others are counted. Default: the object's creation."""
    window: Window | None = None
    """The span in which the trigger is live. Default: always."""
    calendars: Annotated[tuple[CalendarUse, ...], ListOf(most=16, key="name")] = ()
    """Calendars of dates on which it does not fire (rule Exclude), or on which alone it does (Include)."""
    jitter: Duration = Duration("0s")
    """Each run starts later by up to this long, always before the next instant; the same run always by the same amount.
    What is caught up after downtime is spread over the jitter, too. Default: none."""

    @property
    def source(self) -> tuple[str, Any] | None:
        """The member that is set, by the name that manifests use, and its value; None: nothing fires by itself."""
        members = (self.cron, self.fixed_rate, self.fixed_delay, self.daily_interval, self.once, self.completion)
        return next(((name, value) for name, value in zip(SOURCES, members, strict=True) if value is not None), None)
