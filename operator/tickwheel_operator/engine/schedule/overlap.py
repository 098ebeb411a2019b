"""Which runs may be open at a time: `spec.concurrency`.

Runs that are counted together are a `Group`: those of one task, or of all tasks of a namespace that name the same JSON
pointer and have an equal value there. A run of a group is *admitted* (it may be leased) or *held* (it waits until
others have ended). Nothing here is durable: a new leader works it out again from the open runs, and comes to the same,
since a run that a worker had is admitted first and the others in the order in which they were made.
Invariant: a run that is held is in no queue; no run is admitted beside as many as its task allows. Backfills stand
outside: they have a limit of their own.

A leader does not know the spec of a task that is invalid since before it led, so it cannot tell with whom an attempt of
that task is counted. While a worker has it, it counts in every group by key of its namespace.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from tickwheel_operator.engine.model.parameters import merge
from tickwheel_operator.engine.model.runs import Group, GroupKey, Run
from tickwheel_operator.engine.spec import Overlap, OverlapPolicy, TaskSpec
from tickwheel_operator.ledger.facts import SkipReason

__all__ = ["REASONS", "Overlaps", "Verdict"]

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


REASONS = {Verdict.SKIP: SkipReason.OVERLAP, Verdict.FULL: SkipReason.QUEUE_FULL}
"""Why an instant makes no run, of the verdicts that say so."""
_OBJECTIONS = {
    Verdict.SKIP: "as many runs are open as spec.concurrency.maxConcurrent allows, and its policy is Forbid",
    Verdict.FULL: "as many runs wait for open ones as spec.concurrency.queueLimit allows",
}
_VALUE_CHARS = 100
"""Of the value of a key, in a message."""


class Overlaps:
    """All groups that have open runs."""

    def __init__(self, most_waiting: int) -> None:
        """`most_waiting`: under `Allow`, which has no limit of its own."""
        self._most_waiting = most_waiting
        self._groups: dict[GroupKey, Group] = {}
        self._unknown: dict[str, Group] = {}
        """By namespace: the attempts of tasks whose spec is not known."""

    def verdict(self, spec: TaskSpec, parameters: bytes) -> Verdict:
        """What a further run with these parameters over the task's would meet now."""
        if spec.overlap.max_concurrent is None:
            return Verdict.START
        return self._judge(spec.overlap, spec.overlap.max_concurrent, _group_key(spec, parameters), 0)

    def objection(self, spec: TaskSpec, runs: Sequence[bytes]) -> tuple[int, Verdict] | None:
        """Why runs with these parameters may not all be made now: which is the first too many, and why."""
        limit = spec.overlap.max_concurrent
        if limit is None:
            return None
        before: dict[GroupKey, int] = {}
        for place, parameters in enumerate(runs):
            key = _group_key(spec, parameters)
            verdict = self._judge(spec.overlap, limit, key, before.get(key, 0))
            if verdict in (Verdict.SKIP, Verdict.FULL):
                return place, verdict
            before[key] = before.get(key, 0) + 1
        return None

    def explain(self, verdict: Verdict, spec: TaskSpec, parameters: bytes) -> str:
        """Why a further run may not be: the words of `SKIP` or `FULL`, what is counted, and the oldest that is open."""
        words = [_OBJECTIONS[verdict]]
        group = self._groups.get(_group_key(spec, parameters))
        if group is not None:
            if isinstance(group.key, tuple):
                _, pointer, value = group.key
                words.append(f"counted by spec.concurrency.key {pointer}, which is {value.decode()[:_VALUE_CHARS]}")
            if (oldest := next(iter(group.admitted.values()), None)) is not None:
                words.append(f"the oldest that is open is TaskRun {oldest.name}")
        return "; ".join(words)

    def _judge(self, overlap: Overlap, limit: int, key: GroupKey, before: int) -> Verdict:
        """`before`: so many runs of the group are made first."""
        group = self._groups.get(key)
        admitted, held = (0, 0) if group is None else (len(group.admitted), len(group.held))
        unknown = self._count_unknown(key)
        free = 0 if held else max(0, limit - admitted - unknown)
        if before < free:
            return Verdict.START
        match overlap.policy:
            case OverlapPolicy.FORBID:
                # Nobody knows that others are open: it waits until they are known not to be.
                return Verdict.WAIT if unknown and admitted + held + before < limit else Verdict.SKIP
            case OverlapPolicy.REPLACE:
                return Verdict.REPLACE
            case OverlapPolicy.QUEUE:
                return Verdict.FULL if held + before - free >= overlap.queue_limit else Verdict.WAIT
            case OverlapPolicy.ALLOW:
                return Verdict.FULL if held + before - free >= self._most_waiting else Verdict.WAIT

    def enter(self, run: Run, spec: TaskSpec) -> list[Run]:
        """Count a run that was just made, and admit or hold it. Returns the runs that must be cancelled for it."""
        limit = spec.overlap.max_concurrent
        if limit is None or run.execution.retroactive:
            return []
        group = self._join(run, spec)
        if len(group.admitted) + self._count_unknown(group.key) < limit and not group.held:
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

    def doubt(self, run: Run) -> None:
        """A worker has the run, and its task's spec is not known."""
        namespace = run.task.namespace
        group = self._unknown.get(namespace)
        if group is None:
            group = self._unknown[namespace] = Group((namespace, "", b""))
        group.admitted[run.number] = run
        run.group = group

    def doubted(self, group: Group) -> list[Run]:
        """The runs that may be of this group, or not."""
        unknown = self._unknown.get(group.key[0]) if isinstance(group.key, tuple) else None
        return [] if unknown is None else list(unknown.admitted.values())

    def leave(self, run: Run, spec_of: Callable[[Run], TaskSpec]) -> list[Run]:
        """The run has ended. Returns the runs that are admitted in its place."""
        group, run.group = run.group, None
        if group is None:
            return []
        group.admitted.pop(run.number, None)
        group.held.pop(run.number, None)
        return self._fill(group, spec_of)

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
            if spec.overlap.max_concurrent is None or run.execution.retroactive:
                continue
            group = self._join(run, spec)
            touched[group] = None
            # Whom a worker has is in.
            run.held = not run.is_leased
            (group.held if run.held else group.admitted)[run.number] = run
        admitted = [run for run in runs if not run.held and run.number in waited]
        for group in touched:
            # Next come those that are tried again, and then the others in their order.
            group.held = OrderedDict(sorted(group.held.items(), key=lambda item: (not item[1].attempts, item[0])))
            admitted += self._fill(group, spec_of)
        return admitted

    def _count_unknown(self, key: GroupKey) -> int:
        if not self._unknown or not isinstance(key, tuple):
            return 0
        unknown = self._unknown.get(key[0])
        return 0 if unknown is None else len(unknown.admitted)

    def _fill(self, group: Group, spec_of: Callable[[Run], TaskSpec]) -> list[Run]:
        """The group may have a place to spare, or be left by all. Returns the runs that are admitted."""
        namespace = group.key[0] if isinstance(group.key, tuple) else ""
        if self._unknown.get(namespace) is not group:
            admitted = self._admit(group, spec_of)
            if not len(group):
                self._groups.pop(group.key, None)
            return admitted
        waits = [g for g in self._groups.values() if g.held and isinstance(g.key, tuple) and g.key[0] == namespace]
        return [run for other in waits for run in self._admit(other, spec_of)]

    def _join(self, run: Run, spec: TaskSpec) -> Group:
        key = _group_key(spec, run.parameters)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key)
        run.group = group
        return group

    def _admit(self, group: Group, spec_of: Callable[[Run], TaskSpec]) -> list[Run]:
        admitted = []
        while group.held:
            number, run = next(iter(group.held.items()))
            limit = spec_of(run).overlap.max_concurrent
            if limit is not None and len(group.admitted) + self._count_unknown(group.key) >= limit:
                break
            del group.held[number]
            group.admitted[number] = run
            run.held = False
            admitted.append(run)
        return admitted


def _group_key(spec: TaskSpec, parameters: bytes) -> GroupKey:
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
