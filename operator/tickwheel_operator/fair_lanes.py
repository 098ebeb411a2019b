"""Keys that wait for their turn: lanes share the turns by weight, and in each lane the groups take turns.

`workqueue` takes the next key from here. Invariants: a key waits in one lane at most; a lane that has keys gets at
least its weight in as many turns as all weights together; two groups of a lane that both wait get the same number of
turns, give or take one, however many keys each has.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

__all__ = ["FairLanes"]

_Key = TypeVar("_Key", bound=Hashable)


class FairLanes(Generic[_Key]):
    """The keys, first in first out within one group of one lane."""

    def __init__(self, weights: Sequence[int], group: Callable[[_Key], Hashable]) -> None:
        """One weight for each lane, 1 or more. `group` is asked when a key comes in."""
        self._weights = tuple(weights)
        self._group = group
        self._lanes: list[dict[Hashable, dict[_Key, None]]] = [{} for _ in self._weights]
        """By lane and group. The group whose turn is next comes first."""
        self._credit = [0] * len(self._weights)
        self._places: dict[_Key, tuple[int, Hashable]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: _Key) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[_Key]:
        return iter(self._places)

    def put(self, key: _Key, lane: int) -> None:
        """Let the key wait. One that waits in a later lane moves forward; one that waits in this lane or an earlier
        one keeps its place."""
        place = self._places.get(key)
        if place is not None:
            if place[0] <= lane:
                return
            self.discard(key)
        group = self._group(key)
        self._places[key] = (lane, group)
        self._lanes[lane].setdefault(group, {})[key] = None

    def take(self) -> tuple[_Key, int] | None:
        """The key whose turn it is, and its lane; None: none waits."""
        busy = [number for number, groups in enumerate(self._lanes) if groups]
        if not busy:
            return None
        for number, weight in enumerate(self._weights):
            self._credit[number] = self._credit[number] + weight if self._lanes[number] else 0
        lane = max(busy, key=self._credit.__getitem__)
        self._credit[lane] -= sum(self._weights[number] for number in busy)
        groups = self._lanes[lane]
        group = next(iter(groups))
        waiting = groups.pop(group)
        key = next(iter(waiting))
        del waiting[key], self._places[key]
        if waiting:
            groups[group] = waiting  # behind all others
        return key, lane

    def discard(self, key: _Key) -> None:
        """Forget the key, if it waits."""
        place = self._places.pop(key, None)
        if place is not None:
            lane, group = place
            waiting = self._lanes[lane][group]
            del waiting[key]
            if not waiting:
                del self._lanes[lane][group]
