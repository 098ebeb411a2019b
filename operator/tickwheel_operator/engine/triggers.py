"""Triggers: when a task fires, as immutable values with one question, "what comes after this instant?".

Controllers build them from `spec.trigger`; the scheduler asks them for instants, the misfire rule for what
was missed. A trigger that depends on more than time (the end of a run, another task) is none of these: it
is an event that the engine handles. Instants are milliseconds since the Unix epoch, UTC.
Invariants: answers depend on the value alone; triggers with equal keys have equal instants, so that their
tasks share one timer; an answer never takes a walk over all missed instants. Only a filter can make an answer dear:
its searches are bounded, and `looked_until` and `counted_until` say how far they went.
"""

from collections.abc import Hashable, Iterator
from functools import lru_cache
from itertools import islice
from typing import ClassVar, NamedTuple, Protocol

import msgspec

from .calendar import weekday_of
from .cron import CronSchedule, daylight, normal_text, parse, zone_named
from .filters import ANSWERS, Budget, Filter, GaveUp, Search
from .instants import LAST_MS, timestamp
from .spelling import spell_clock, spell_duration

__all__ = [
    "AnyTrigger",
    "CronTrigger",
    "DailyIntervalTrigger",
    "FilteredTrigger",
    "FixedRateTrigger",
    "OnceTrigger",
    "Trigger",
    "counted_until",
    "latest",
    "looked_until",
    "once_at",
    "spell_duration",
]

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
_EVERY_DAY = 127
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_CHECKED = 128
"""After so many turns a search looks whether another one has been there."""
_KEPT = 1_024
_TURNS_EACH = 4
"""What finding one more of the latest instants may cost: a few runs more than a search for one."""
_NO_LIMIT = 2**62


class Trigger(Protocol):
    """What the engine asks of a trigger.

    Every answer is a pure function of the trigger and the arguments, and raises nothing.
    """

    def next_after(self, instant_ms: int) -> int | None:
        """Return the first instant strictly after `instant_ms`, or `None` if there is none.

        `None` also stands for a search that gave up: `looked_until` tells.
        """

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        """Return the last instant at or before `instant_ms` but after `after_ms`, or `None`."""

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        """Return how many instants are after `after_ms`, up to and including `until_ms`; at most `limit`.

        Where the count gave up: how many there are at least. `counted_until` tells.
        """

    def key(self) -> Hashable:
        """Return a value that is equal for triggers with the same instants."""

    def form(self) -> tuple[object, ...]:
        """Return the trigger as plain values, equal for triggers with the same instants: what the ledger keeps of it.

        The dates of calendars are not in it. `fingerprints.trigger_of` reads it.
        """

    def describe(self) -> str:
        """Return one line for people."""


class CronTrigger(msgspec.Struct, frozen=True, tag_field="type", tag="cron"):
    """The instants of a cron expression in a time zone.

    Raises
    ------
    CronError
        The expression cannot be read. One that never fires can be built: its `next_after` is `None`.
    UnknownZoneError
        There is no such zone.
    """

    expression: str
    """5 or 6 fields, or a macro; the dialect is `engine.cron`'s."""
    zone_name: str = "UTC"
    """IANA name, such as `Asia/Shanghai`."""
    identity: str = ""
    """What `H` is a hash of: the task's namespace and name. Without an `H`, no matter."""

    def __post_init__(self) -> None:
        zone_named(self.zone_name)
        parse(self.expression, identity=self.identity)

    @property
    def schedule(self) -> CronSchedule:
        """The parsed expression; kept by `parse`, not by the value, which stays a plain record."""
        return parse(self.expression, identity=self.identity)

    def next_after(self, instant_ms: int) -> int | None:
        return self.schedule.next_after(instant_ms, zone_named(self.zone_name))

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        latest = self.schedule.latest_until(instant_ms, zone_named(self.zone_name))
        return latest if latest is not None and latest > after_ms else None

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        return min(limit, self.schedule.count(after_ms, until_ms, zone_named(self.zone_name)))

    def key(self) -> Hashable:
        return ("cron", self.schedule, self.zone_name)

    def form(self) -> tuple[object, ...]:
        return ("cron", normal_text(self.expression, self.identity), self.zone_name)

    def describe(self) -> str:
        return f"cron {' '.join(self.expression.split())} ({self.zone_name})"


class FixedRateTrigger(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="fixedRate"):
    """An instant every period: at the anchor, a period after it, and so on without drift."""

    period_ms: int
    """Milliseconds, 1 or more. (Users may ask for 10 ms and more; the resource's schema says so.)"""
    anchor_ms: int
    """The first instant."""

    def __post_init__(self) -> None:
        if self.period_ms < 1:
            raise ValueError(
                f"period_ms is {self.period_ms}; a period is 1 ms or more, for example 500 for half a second"
            )

    def next_after(self, instant_ms: int) -> int | None:
        following = self.anchor_ms + self._begun_until(instant_ms) * self.period_ms
        return following if following <= LAST_MS else None

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        latest = self.anchor_ms + (self._begun_until(instant_ms) - 1) * self.period_ms
        return latest if latest >= self.anchor_ms and latest > after_ms else None

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        return max(0, min(limit, self._begun_until(until_ms) - self._begun_until(after_ms)))

    def key(self) -> Hashable:
        return self  # no tuple beside it: there may be a million

    def form(self) -> tuple[object, ...]:
        return ("fixedRate", self.period_ms, self.anchor_ms)

    def describe(self) -> str:
        return f"every {spell_duration(self.period_ms)} from {timestamp(self.anchor_ms)}"

    def _begun_until(self, instant_ms: int) -> int:
        """Return how many instants there are at or before `instant_ms`."""
        return max(0, (min(instant_ms, LAST_MS) - self.anchor_ms) // self.period_ms + 1)


class OnceTrigger(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="once"):
    """One instant."""

    at_ms: int

    def next_after(self, instant_ms: int) -> int | None:
        return self.at_ms if self.at_ms > instant_ms else None

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        return self.at_ms if after_ms < self.at_ms <= instant_ms else None

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        return min(limit, int(after_ms < self.at_ms <= until_ms))

    def key(self) -> Hashable:
        return self

    def form(self) -> tuple[object, ...]:
        return ("once", self.at_ms)

    def describe(self) -> str:
        return f"once at {timestamp(self.at_ms)}"


class DailyIntervalTrigger(msgspec.Struct, frozen=True, tag_field="type", tag="dailyInterval"):
    """An instant every so often between two times of day, counted from the first of them.

    The instants are the times `from`, `from` + `every`, `from` + 2 * `every`, ... that the clock on the wall shows
    before `to`. When the clock is set, an interval of up to an hour follows the clock as it really runs, as a step of a
    cron expression does: both passes of a repeated hour, nothing for a skipped one, so that "every 15m" never pauses. A
    longer one names a few fixed times, and each comes once: after the gap, if a gap skips it; the first time, if it
    happens twice.
    """

    unit_ms: ClassVar[int] = 1
    """Its local times are milliseconds."""

    every_ms: int
    """1 or more. (Users may ask for 10 ms and more.)"""
    from_ms: int
    """After midnight, by the clock on the wall: 0 to 86,400,000."""
    to_ms: int
    """As `from_ms`. No instant at or after it; before `from_ms`: that time of the next day."""
    days: int = _EVERY_DAY
    """Bit n: a span begins on weekday n; 0 is Monday."""
    zone_name: str = "UTC"

    def __post_init__(self) -> None:
        zone_named(self.zone_name)
        if self.every_ms < 1:
            raise ValueError(f"every_ms is {self.every_ms}; an interval is 1 ms or more, for example 900000 for 15m")
        if not (0 <= self.from_ms <= _DAY_MS and 0 <= self.to_ms <= _DAY_MS) or self._span_ms == 0:
            raise ValueError(
                f"from_ms {self.from_ms} and to_ms {self.to_ms} must be two different times of day: 0 to {_DAY_MS}"
            )
        if not 0 < self.days <= _EVERY_DAY:
            raise ValueError(f"days is {self.days}; a bit for each weekday: 1 (Mon) to {_EVERY_DAY} (all)")

    def next_after(self, instant_ms: int) -> int | None:
        return daylight.next_after(self, instant_ms, zone_named(self.zone_name))

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        latest = daylight.latest_until(self, instant_ms, zone_named(self.zone_name))
        return latest if latest is not None and latest > after_ms else None

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        return min(limit, daylight.count(self, after_ms, until_ms, zone_named(self.zone_name)))

    def key(self) -> Hashable:
        return self.form()

    def form(self) -> tuple[object, ...]:
        # The earliest end with the same times: 20:00 says no more than 24:00 where the last of them is 18:00.
        to_ms = self.from_ms + (self._per_day - 1) * self.every_ms + 1
        to_ms -= _DAY_MS if to_ms > _DAY_MS else 0
        return ("dailyInterval", self.every_ms, self.from_ms, to_ms, self.days, self.zone_name)

    def describe(self) -> str:
        names = [name for weekday, name in enumerate(_WEEKDAYS) if self.days >> weekday & 1]
        days = "" if self.days == _EVERY_DAY else f" on {', '.join(names)}"
        return (
            f"every {spell_duration(self.every_ms)} from {spell_clock(self.from_ms)} to {spell_clock(self.to_ms)}"
            f"{days} ({self.zone_name})"
        )

    @property
    def follows_clock(self) -> bool:
        """See the class."""
        return self.every_ms <= _HOUR_MS

    def at_or_after(self, local: int) -> int | None:
        """The first of the local times at or after `local`."""
        day, since = divmod(local - self.from_ms, _DAY_MS)
        place = -(-since // self.every_ms)
        if place >= self._per_day or not self._begins_on(day):
            place, day = 0, day + 1
            while not self._begins_on(day):
                day += 1
        return day * _DAY_MS + self.from_ms + place * self.every_ms

    def at_or_before(self, local: int) -> int | None:
        """The last of the local times at or before `local`."""
        day, since = divmod(local - self.from_ms, _DAY_MS)
        while not self._begins_on(day):
            day, since = day - 1, _DAY_MS
        return day * _DAY_MS + self.from_ms + min(since // self.every_ms, self._per_day - 1) * self.every_ms

    def count_local(self, low: int, high: int) -> int:
        """How many of the local times are in [low, high)."""
        return self._count_before(high) - self._count_before(low)

    @property
    def _per_day(self) -> int:
        """How many times a span has."""
        return -(-self._span_ms // self.every_ms)

    @property
    def _span_ms(self) -> int:
        """0 where both are one time of day."""
        span_ms = self.to_ms - self.from_ms
        return span_ms + _DAY_MS if span_ms < 0 else span_ms

    def _begins_on(self, day: int) -> bool:
        return bool(self.days >> weekday_of(day) & 1)

    def _count_before(self, local: int) -> int:
        """How many of the local times are before `local`, from a Monday long ago."""
        day, since = divmod(local - self.from_ms, _DAY_MS)
        weeks, weekday = divmod(day + 3, 7)
        whole_days = weeks * self.days.bit_count() + (self.days & ((1 << weekday) - 1)).bit_count()
        today = min(-(-since // self.every_ms), self._per_day) if self._begins_on(day) else 0
        return whole_days * self._per_day + today


class FilteredTrigger(msgspec.Struct, frozen=True, tag_field="type", tag="filtered"):
    """The instants of another trigger that a window and calendars admit.

    Searches alternate between the two, so that whichever is rarer sets the pace: the instants of the base, or the
    changes of the filter. Where both are frequent, and refuse each other for long, a search gives up.
    Not of `AnyTrigger`: a calendar's dates are no text that a codec could read.
    """

    base: Trigger
    filter: Filter

    def next_after(self, instant_ms: int) -> int | None:
        """The first instant after `instant_ms`.

        None also stands for one that is over 40 years away, or behind more than the filter refuses one by one in a
        search: `looked_until` tells.
        """
        found = self.search(instant_ms)
        return None if isinstance(found, Search) else found

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        """The last instant; where the search gives up, a late one, or None."""
        found = _latest(self, after_ms, instant_ms, 1)
        return found[0] if found else None

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        return max(0, min(_survey(self, after_ms, until_ms).total, limit))

    def key(self) -> Hashable:
        return ("filtered", self.base.key(), self.filter)

    def form(self) -> tuple[object, ...]:
        return ("filtered", self.base.form(), *self.filter.form())

    def describe(self) -> str:
        return f"{self.base.describe()}; {self.filter.describe()}"

    def search(self, instant_ms: int, answers: int = ANSWERS) -> int | Search:
        """The first instant after `instant_ms`, or why none was found."""
        return self._look(instant_ms, answers)[0]

    def looked_until(self, instant_ms: int) -> int | None:
        """See the function of this name."""
        found, until_ms = self._look(instant_ms, ANSWERS)
        match found:
            case Search.NEVER:
                return None
            case Search.GAVE_UP:
                return until_ms
            case int():
                return found - 1

    def _look(self, instant_ms: int, answers: int) -> tuple[int | Search, int]:
        """What there is after an instant, and up to when (included) all before is refused."""
        found_ms = self.base.next_after(instant_ms)
        if found_ms is None:
            return Search.NEVER, instant_ms
        admitted, change_ms = self.filter.stands(found_ms)
        if admitted:
            return found_ms, found_ms
        horizon_ms = self.filter.horizon(instant_ms)
        turns = self.filter.turns(answers)
        for turn in range(1, turns):
            if change_ms > horizon_ms:
                return Search.NEVER, instant_ms
            found_ms = self.base.next_after(change_ms - 1)
            if found_ms is None:
                return Search.NEVER, instant_ms
            admitted, change_ms = self.filter.stands(found_ms)
            if admitted:
                return self._noted(turn, instant_ms, found_ms, found_ms)
            # Tasks that share a trigger ask the same, one after another.
            if turn == _CHECKED and answers == ANSWERS:
                since_ms, found, until_ms = _NOTED.get(self.key(), (0, Search.GAVE_UP, 0))
                if since_ms <= found_ms < until_ms:
                    return found, until_ms
        return self._noted(turns, instant_ms, Search.GAVE_UP, change_ms - 1)

    def _noted(self, turn: int, since_ms: int, found: int | Search, until_ms: int) -> tuple[int | Search, int]:
        if turn > _CHECKED:
            if len(_NOTED) >= _KEPT:
                _NOTED.clear()
            _NOTED[self.key()] = (since_ms, found, until_ms)
        return found, until_ms


_NOTED: dict[Hashable, tuple[int, int | Search, int]] = {}
"""By the key of a filtered trigger, of its last long search: from when on nothing was found, what then, and when."""


class _Survey(NamedTuple):
    total: int
    last: tuple[int, int] | None
    """A span, the first excluded, that ends with the last that was found."""
    until_ms: int
    """All up to here is counted."""


@lru_cache(maxsize=_KEPT)
def _survey(trigger: FilteredTrigger, after_ms: int, until_ms: int) -> _Survey:
    """Count the instants in `(after_ms, until_ms]`, span by span. Kept: tasks that share a trigger ask the same."""
    base, admitted = trigger.base, trigger.filter
    total, last = 0, None
    for _ in range(admitted.turns()):
        found_ms = base.next_after(after_ms)
        if found_ms is None or found_ms > until_ms:
            after_ms = until_ms
            break
        inside, change_ms = admitted.stands(found_ms)
        after_ms = min(change_ms - 1, until_ms)
        if inside:
            last = (found_ms - 1, after_ms)
            total += base.count_between(*last, _NO_LIMIT)
    return _Survey(total, last, after_ms)


@lru_cache(maxsize=_KEPT)
def _latest(trigger: FilteredTrigger, after_ms: int, until_ms: int, limit: int) -> tuple[int, ...]:
    """The last instants in `(after_ms, until_ms]`, in order, at most `limit`. Kept, as `_survey`."""
    base, admitted = trigger.base, trigger.filter
    found: list[int] = []
    budget = Budget(admitted.turns() // 2)  # a turn here is two questions
    try:
        at_ms = base.last_at_or_before(until_ms, after_ms)
        while at_ms is not None and len(found) < limit:
            admitted_ms = admitted.previous_admitted(at_ms, after_ms, budget)
            if admitted_ms is None:
                break
            if admitted_ms == at_ms:
                found.append(at_ms)
                admitted_ms -= 1
                budget.left += _TURNS_EACH
            at_ms = base.last_at_or_before(admitted_ms, after_ms)
    except GaveUp:
        survey = _survey(trigger, after_ms, until_ms)
        if not found and survey.last is not None:  # late ones, if not the last: what it came upon from the other side
            low_ms, high_ms = survey.last
            found = list(islice(_backwards(base, low_ms, high_ms), limit))
    return tuple(reversed(found))


def _backwards(trigger: Trigger, after_ms: int, until_ms: int) -> Iterator[int]:
    instant = trigger.last_at_or_before(until_ms, after_ms)
    while instant is not None:
        yield instant
        instant = trigger.last_at_or_before(instant - 1, after_ms)


def latest(trigger: Trigger, after_ms: int, until_ms: int, limit: int) -> list[int]:
    """Return the last instants in `(after_ms, until_ms]`, in order, at most `limit`; fewer where it gives up."""
    if isinstance(trigger, FilteredTrigger):
        return list(_latest(trigger, after_ms, until_ms, limit))
    return list(islice(_backwards(trigger, after_ms, until_ms), limit))[::-1]


def looked_until(trigger: Trigger, instant_ms: int) -> int | None:
    """Return up to when (included) it is known that there is no instant after `instant_ms`; `None`: for good.

    Where `next_after` is `None` and this is not, the search gave up there: ask again from there on.
    """
    if isinstance(trigger, FilteredTrigger):
        return trigger.looked_until(instant_ms)
    found_ms = trigger.next_after(instant_ms)
    return None if found_ms is None else found_ms - 1


def once_at(trigger: Trigger) -> int | None:
    """Return the one instant of a `once`, whether or not its window and calendars admit it; `None`: it is another."""
    source = trigger.base if isinstance(trigger, FilteredTrigger) else trigger
    return source.at_ms if isinstance(source, OnceTrigger) else None


def counted_until(trigger: Trigger, after_ms: int, until_ms: int) -> int:
    """Return up to when (included) `count_between` counts: before `until_ms`, if it gives up there."""
    if isinstance(trigger, FilteredTrigger):
        return _survey(trigger, after_ms, until_ms).until_ms
    return until_ms


AnyTrigger = CronTrigger | FixedRateTrigger | OnceTrigger | DailyIntervalTrigger
"""The triggers that a codec can tell apart by their tag."""
