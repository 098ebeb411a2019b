"""Sources: what starts a task's runs. By the clock, by the end of its own last run or of another task's, or by hand.

Controllers build one from `spec.trigger`; `TaskSpec.source` holds it, and each member has a starter in the engine. What
they share is small: each can be restricted by a filter, and says whether anything may still come of it.
"""

from __future__ import annotations

import enum
from typing import ClassVar

import msgspec

from tickwheel_operator.engine.triggers import FilteredTrigger, Trigger, looked_until, spell_duration
from tickwheel_operator.engine.triggers.filters import Filter, Search

__all__ = ["ByClock", "ByHand", "Completion", "FixedDelay", "Outcome", "Source"]


class Outcome(enum.Enum):
    """How the run of another task ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    ANY = "Any"


class ByClock(msgspec.Struct, frozen=True, gc=False):
    """A run for each instant of a trigger."""

    trigger: Trigger
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

    def form(self) -> tuple[object, ...]:
        return self.trigger.form()

    def describe(self) -> str:
        return self.trigger.describe()


class FixedDelay(msgspec.Struct, frozen=True, gc=False):
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

    def form(self) -> tuple[object, ...]:
        return _filtered(("fixedDelay", self.delay_ms), self.filter)

    def describe(self) -> str:
        return _described(f"{spell_duration(self.delay_ms)} after the end of the last run", self.filter)


class Completion(msgspec.Struct, frozen=True, gc=False):
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

    def form(self) -> tuple[object, ...]:
        return _filtered(("completion", self.task, self.outcome.value), self.filter)

    def describe(self) -> str:
        ended = "ended" if self.outcome is Outcome.ANY else self.outcome.value.lower()
        return _described(f"after a run of {self.task} {ended}", self.filter)


class ByHand(msgspec.Struct, frozen=True, gc=False):
    """Nothing starts by itself: a run for each request by a person, the API or a workflow."""

    trigger: ClassVar[None] = None
    filter: ClassVar[None] = None
    follows: ClassVar[None] = None

    def within(self, admitted: Filter | None) -> ByHand:
        return self

    def has_ended(self, now_ms: int, *, is_open: bool) -> bool:
        return False

    def form(self) -> tuple[object, ...]:
        return ("manual",)

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
`form`
    As `Trigger.form`.
`describe`
    One line for people.
"""


def _filtered(form: tuple[object, ...], admitted: Filter | None) -> tuple[object, ...]:
    return form if admitted is None else ("filtered", form, *admitted.form())


def _described(text: str, admitted: Filter | None) -> str:
    return text if admitted is None else f"{text}; {admitted.describe()}"
