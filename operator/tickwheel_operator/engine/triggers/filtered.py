"""Triggers whose instants a window and calendars restrict, and searches that work for every trigger.

Only a filter can make an answer expensive: its searches are bounded, and `looked_until` and `counted_until` say how far
they went.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import msgspec

from .filters import ANSWERS, Budget, Filter, GaveUp, Search
from .members import Unfiltered
from .once import OnceTrigger
from .trigger import Trigger

__all__ = ["FilteredTrigger", "counted_until", "latest", "looked_until", "once_at"]

_CHECKED = 128
"""After so many turns a search looks whether another one has been there."""
_KEPT = 1_024
_TURNS_EACH = 4
"""What finding one more of the latest instants may cost: a few runs more than a search for one."""
_NO_LIMIT = 2**62


class FilteredTrigger(msgspec.Struct, frozen=True, array_like=True, tag="filtered"):
    """The instants of another trigger that a window and calendars admit.

    Searches alternate between the two, so that whichever is rarer sets the pace: the instants of the base, or the
    changes of the filter. Where both are frequent, and refuse each other for long, a search gives up.
    """

    base: Unfiltered
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

    def normal(self) -> Unfiltered | FilteredTrigger:
        base, admitted = self.base.normal(), self.filter.normal()
        return FilteredTrigger(base, admitted) if admitted else base

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


def counted_until(trigger: Trigger, after_ms: int, until_ms: int) -> int:
    """Return up to when (included) `count_between` counts: before `until_ms`, if it gives up there."""
    if isinstance(trigger, FilteredTrigger):
        return _survey(trigger, after_ms, until_ms).until_ms
    return until_ms


def once_at(trigger: Trigger) -> int | None:
    """Return the one instant of a `once`, whether or not its window and calendars admit it; `None`: it is another."""
    source = trigger.base if isinstance(trigger, FilteredTrigger) else trigger
    return source.at_ms if isinstance(source, OnceTrigger) else None
