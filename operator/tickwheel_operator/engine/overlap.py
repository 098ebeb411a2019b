"""Which runs may be open at a time: `spec.concurrency`.

Runs that are counted together are a `Group`: those of one task, or of all tasks of a namespace that name the same JSON
pointer and have an equal value there. A run of a group is *admitted* (it may be leased) or *held* (it waits until
others have ended). Nothing here is durable: a new leader works it out again from the open runs, and comes to the same,
since a run that a worker had is admitted first and the others in the order in which they were made.
Invariant: a run that is held is in no lane; no run is admitted beside as many as its task allows. Backfills stand
outside: they have a limit of their own.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import msgspec

from tickwheel_operator.engine.parameters import merge
from tickwheel_operator.engine.spec import OverlapPolicy, TaskSpec
from tickwheel_operator.engine.state import Run, State
from tickwheel_operator.ledger.facts import Origin

__all__ = ["Group", "Overlaps", "Verdict"]

_decode = msgspec.json.Decoder().decode
_MISSING = object()


class Verdict(enum.Enum):
    """What becomes of a run that is due."""

    START = "start"
    WAIT = "wait"
    REPLACE = "replace"
    """It waits for the oldest ones, which must be cancelled."""
    SKIP = "skip"
    """`Forbid`: earlier ones are open."""
    FULL = "full"
    """`Queue`: as many wait as may."""


class Group:
    """Runs that are counted together, in the order in which they were made."""

    __slots__ = ("admitted", "held", "key")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.admitted: OrderedDict[int, Run] = OrderedDict()
        self.held: OrderedDict[int, Run] = OrderedDict()

    def __len__(self) -> int:
        return len(self.admitted) + len(self.held)


class Overlaps:
    """All groups that have open runs."""

    def __init__(self, state: State, most_waiting: int) -> None:
        """`most_waiting`: held runs of a group under `Allow`, which has no limit of its own."""
        self._state = state
        self._most_waiting = most_waiting
        self._groups: dict[Hashable, Group] = {}

    def verdict(self, spec: TaskSpec, parameters: bytes) -> Verdict:
        """What a further run with these parameters over the task's would meet now."""
        overlap = spec.overlap
        if overlap.max_concurrent is None:
            return Verdict.START
        group = self._groups.get(_group_key(spec, parameters))
        if group is None or (len(group.admitted) < overlap.max_concurrent and not group.held):
            return Verdict.START
        match overlap.policy:
            case OverlapPolicy.FORBID:
                return Verdict.SKIP
            case OverlapPolicy.REPLACE:
                return Verdict.REPLACE
            case OverlapPolicy.QUEUE:
                return Verdict.FULL if len(group.held) >= overlap.queue_limit else Verdict.WAIT
            case OverlapPolicy.ALLOW:
                return Verdict.FULL if len(group.held) >= self._most_waiting else Verdict.WAIT

    def enter(self, run: Run, spec: TaskSpec) -> list[Run]:
        """Count a run that was just made, and admit or hold it. Returns the runs that must be cancelled for it."""
        limit = spec.overlap.max_concurrent
        if limit is None or run.origin in (Origin.BACKFILL, Origin.SPAN):
            return []
        group = self._join(run, spec)
        if len(group.admitted) < limit and not group.held:
            group.admitted[run.number] = run
            return []
        run.held = True
        group.held[run.number] = run
        if spec.overlap.policy is not OverlapPolicy.REPLACE:
            return []
        # The newest stands for those that still wait; of the others so many must go that it finds a place.
        superseded = [other for other in group.held.values() if other is not run]
        surplus = len(group.admitted) - limit + 1
        stopping = sum(other.cancelling is not None for other in group.admitted.values())
        oldest = [other for other in group.admitted.values() if other.cancelling is None]
        return superseded + oldest[: max(0, surplus - stopping)]

    def leave(self, run: Run, spec_of: Callable[[Run], TaskSpec]) -> list[Run]:
        """The run has ended. Returns the runs that are admitted in its place."""
        group, run.group = run.group, None
        if group is None:
            return []
        group.admitted.pop(run.number, None)
        group.held.pop(run.number, None)
        admitted = self._admit(group, spec_of)
        if not len(group):
            self._groups.pop(group.key, None)
        return admitted

    def regroup(self, runs: Iterable[Run], spec_of: Callable[[Run], TaskSpec]) -> list[Run]:
        """Count these open runs anew: after a takeover, or since their task's policy was edited. Returns those that
        need not wait any more."""
        runs = list(runs)
        waited = {run.number for run in runs if run.held}
        touched: dict[Group, None] = {}
        for run in runs:
            if (group := run.group) is not None:
                group.admitted.pop(run.number, None)
                group.held.pop(run.number, None)
                touched[group] = None
            run.group, run.held = None, False
        for run in runs:
            spec = spec_of(run)
            if spec.overlap.max_concurrent is None or run.origin in (Origin.BACKFILL, Origin.SPAN):
                continue
            group = self._join(run, spec)
            touched[group] = None
            # Whoever had a worker is in; the others come after, in their order.
            run.held = not run.attempts and not run.dispatch.token
            (group.held if run.held else group.admitted)[run.number] = run
        admitted = [run for run in runs if not run.held and run.number in waited]
        for group in touched:
            group.held = OrderedDict(sorted(group.held.items()))
            admitted += self._admit(group, spec_of)
            if not len(group):
                self._groups.pop(group.key, None)
        return admitted

    def _join(self, run: Run, spec: TaskSpec) -> Group:
        key = _group_key(spec, run.parameters)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key)
        run.group = group
        return group

    @staticmethod
    def _admit(group: Group, spec_of: Callable[[Run], TaskSpec]) -> list[Run]:
        admitted = []
        while group.held:
            number, run = next(iter(group.held.items()))
            limit = spec_of(run).overlap.max_concurrent
            if limit is not None and len(group.admitted) >= limit:
                break
            del group.held[number]
            group.admitted[number] = run
            run.held = False
            admitted.append(run)
        return admitted


def _group_key(spec: TaskSpec, parameters: bytes) -> Hashable:
    pointer = spec.overlap.key
    if pointer is not None:
        value = _value_at(merge(spec.parameters, parameters) if parameters else spec.parameters, pointer)
        if value is not _MISSING:
            return (spec.namespace, pointer, msgspec.json.encode(value, order="sorted"))
    return spec.uid


def _value_at(parameters: bytes, pointer: str) -> Any:
    """What RFC 6901 finds there."""
    value = _decode(parameters)
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(part, _MISSING)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _MISSING
        if value is _MISSING:
            return _MISSING
    return value
