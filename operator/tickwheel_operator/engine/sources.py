"""Sources: what starts a task's runs. By the clock, by the end of its own last run or of another task's, or by hand.

Controllers build one from `spec.trigger`; `TaskSpec.source` holds it, and each member has a starter in the engine. What
they share is small: each can be restricted by a filter, and says whether anything may still come of it.
In the ledger a schedule is its `identity`: the source in its normal form, as JSON. So it can be read again, by which
`engine.schedule.edits` counts what a schedule leaves undone that was edited away while nobody led.
Invariant: sources that start the same runs have one identity, however they are written and described.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar

import msgspec

from tickwheel_operator.engine.cron import CronError, UnknownZoneError
from tickwheel_operator.engine.triggers import AnyTrigger, FilteredTrigger, looked_until, spell_duration
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.filters import Filter, Search

__all__ = ["ByClock", "ByHand", "Completion", "FixedDelay", "Outcome", "Source", "identity", "source_of"]


class Outcome(enum.Enum):
    """How the run of another task ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    ANY = "Any"


class ByClock(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="clock"):
    """A run for each instant of a trigger."""

    trigger: AnyTrigger
    """Its window and calendars included."""
    follows: ClassVar[None] = None

    @property
    def filter(self) -> Filter | None:
        return self.trigger.filter if isinstance(self.trigger, FilteredTrigger) else None

    def within(self, admitted: Filter | None) -> ByClock:
        base = self.trigger.base if isinstance(self.trigger, FilteredTrigger) else self.trigger
        return ByClock(base if admitted is None else FilteredTrigger(base, admitted))

    def has_ended(self, now_ms: int, *, is_open: bool) -> bool:
        return looked_until(self.trigger, now_ms) is None

    def normal(self) -> ByClock:
        return ByClock(self.trigger.normal())

    def describe(self) -> str:
        return self.trigger.describe()


class FixedDelay(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="fixedDelay"):
    """The next instant is this long after the end of the last run; the first, after the task was armed."""

    delay_ms: int
    filter: Filter | None = None
    """Its instants are the first that this admits; None: all are admitted."""
    trigger: ClassVar[None] = None
    follows: ClassVar[None] = None

    def within(self, admitted: Filter | None) -> FixedDelay:
        return FixedDelay(self.delay_ms, admitted)

    def has_ended(self, now_ms: int, *, is_open: bool) -> bool:
        earliest_ms = now_ms if is_open else now_ms + self.delay_ms
        return self.filter is not None and self.filter.search(earliest_ms) is Search.NEVER

    def normal(self) -> FixedDelay:
        return self.within(None if self.filter is None else self.filter.normal())

    def describe(self) -> str:
        return _described(f"{spell_duration(self.delay_ms)} after the end of the last run", self.filter)


class Completion(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="completion"):
    """A run for each end of a run of another task of the namespace."""

    task: str
    outcome: Outcome = Outcome.SUCCEEDED
    filter: Filter | None = None
    """Ends that it does not admit are passed over; None: all are admitted."""
    trigger: ClassVar[None] = None

    @property
    def follows(self) -> str:
        return self.task

    def within(self, admitted: Filter | None) -> Completion:
        return Completion(self.task, self.outcome, admitted)

    def has_ended(self, now_ms: int, *, is_open: bool) -> bool:
        return self.filter is not None and self.filter.search(now_ms) is Search.NEVER

    def normal(self) -> Completion:
        return self.within(None if self.filter is None else self.filter.normal())

    def describe(self) -> str:
        ended = "ended" if self.outcome is Outcome.ANY else self.outcome.value.lower()
        return _described(f"after a run of {self.task} {ended}", self.filter)


class ByHand(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="manual"):
    """Nothing starts by itself: a run for each request by a person, the API or a workflow."""

    trigger: ClassVar[None] = None
    filter: ClassVar[None] = None
    follows: ClassVar[None] = None

    def within(self, admitted: Filter | None) -> ByHand:
        return self

    def has_ended(self, now_ms: int, *, is_open: bool) -> bool:
        return False

    def normal(self) -> ByHand:
        return self

    def describe(self) -> str:
        return "manual"


Source = ByClock | FixedDelay | Completion | ByHand
"""What each member has:

`trigger`
    What makes its instants of time; None: they are not known ahead.
`filter`
    The window and calendars that restrict it, if any. `within` returns it with another filter, or with none.
`follows`
    The name of the task whose ends it waits for, if any.
`has_ended(now_ms, is_open=...)`
    Whether nothing will start after `now_ms`; `is_open`: a run of it is open.
`normal`
    As `Trigger.normal`.
`describe`
    One line for people.
"""


def identity(source: Source) -> str:
    """Return what the ledger knows a source by. The dates of its calendars are not in it."""
    return _encode(source.normal()).decode()


def source_of(text: str) -> Source | None:
    """Return the source with this identity, but for its calendars, whose dates nobody knows; `None`: another release
    wrote it."""
    try:
        source: Source = _decode(text)
    except (CronError, UnknownZoneError, ValueError, msgspec.DecodeError):
        return None
    return source.within(None if source.filter is None else source.filter.window())


def _described(text: str, admitted: Filter | None) -> str:
    return text if admitted is None else f"{text}; {admitted.describe()}"


def _name(calendar: Any) -> str:
    name: str = calendar.name
    return name


def _calendar(_: type, name: Any) -> CalendarDates:
    return CalendarDates(name)


_encode = msgspec.json.Encoder(enc_hook=_name).encode
_decode = msgspec.json.Decoder(Source, dec_hook=_calendar).decode
