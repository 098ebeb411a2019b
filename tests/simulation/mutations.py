"""Ways to break the operator, each in one place: the proof that the simulation can fail.

Each is a function that breaks the code by a monkeypatch; `test_simulation.py` asks that some seed finds each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from tests.simulation.mutations_time import TIME_MUTATIONS

from tickwheel_operator.election.term import Term
from tickwheel_operator.engine import core
from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.dispatch import leasing
from tickwheel_operator.engine.dispatch.failures import Failures
from tickwheel_operator.engine.dispatch.leasing import Leasing
from tickwheel_operator.engine.dispatch.routing import Router
from tickwheel_operator.engine.model import snapshot
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.runs import Dispatch
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.requests import Requests
from tickwheel_operator.engine.schedule.groups import Entry
from tickwheel_operator.engine.schedule.overdue import Overdue
from tickwheel_operator.engine.schedule.scheduler import Scheduler
from tickwheel_operator.engine.schedule.starters.clock import ClockStarter
from tickwheel_operator.engine.spec import Guarantee
from tickwheel_operator.ledger import compaction, log, protocol, splitting
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.protocol import SegmentKind
from tickwheel_operator.runtime.checkpoints import Checkpoints
from tickwheel_operator.runtime.partition import PartitionHost

__all__ = ["MUTATIONS"]

Patch = pytest.MonkeyPatch


# --- the host and the lease ---


def effects_before_facts(patch: Patch) -> None:
    original = PartitionHost._commit_batch

    async def commit(self: PartitionHost, loop: asyncio.AbstractEventLoop) -> None:
        for effect in self._effects:
            future = self._waiting.get(effect.request)
            if future is not None and not future.done():
                future.set_result(effect)
        await original(self, loop)

    patch.setattr(PartitionHost, "_commit_batch", commit)


def effects_without_facts_do_not_wait(patch: Patch) -> None:
    original = PartitionHost._collect

    def collect(self: PartitionHost, output: m.Output) -> None:
        if not output.facts:
            for effect in output.effects:
                future = self._waiting.pop(effect.request, None)
                if future is not None and not future.done():
                    future.set_result(effect)
        original(self, output)

    patch.setattr(PartitionHost, "_collect", collect)


def views_before_facts(patch: Patch) -> None:
    original = PartitionHost._take_views

    def take(self: PartitionHost, now: float) -> None:
        if (views := original(self, now)) is not None and self._sink is not None:
            self._sink.show(views)

    patch.setattr(PartitionHost, "_take_views", take)


def lease_not_looked_at(patch: Patch) -> None:
    patch.setattr(Term, "is_fresh", lambda self: True)


def checkpoint_of_what_is_not_durable(patch: Patch) -> None:
    """The state is taken after the append, when more has been decided."""
    original = Checkpoints.begin

    def begin(self: Checkpoints, taken: snapshot.Snapshot) -> None:
        original(self, snapshot.Snapshot(taken._state))

    patch.setattr(Checkpoints, "begin", begin)


def checkpoint_of_a_moving_state(patch: Patch) -> None:
    """What changes while a checkpoint is written is not written down as it was."""
    patch.setattr(snapshot.Snapshot, "before", lambda self, fact: None)


def checkpoint_for_more_than_it_has(patch: Patch) -> None:
    """It stands for all that lies below its first chunk, also for what was appended while it was made."""
    original = log.Ledger._write

    async def write(self: log.Ledger, segment: protocol.Segment) -> None:
        if segment.kind is SegmentKind.CHECKPOINT:
            segment = msgspec.structs.replace(segment, generation=segment.sequence - segment.chunk)
        await original(self, segment)

    patch.setattr(log.Ledger, "_write", write)


# --- the ledger ---


def names_become_free(patch: Patch) -> None:
    def garbage(self: compaction.Compaction, generation: int) -> list[int]:
        return [n for n in sorted(self._retained) if n < generation]

    patch.setattr(compaction.Compaction, "garbage", garbage)


def rival_taken_for_oneself(patch: Patch) -> None:
    original = log.Ledger._put

    async def put(self: log.Ledger, segment: Any) -> bool:
        await original(self, segment)
        return True

    patch.setattr(log.Ledger, "_put", put)


def lost_answer_taken_for_a_failure(patch: Patch) -> None:
    """An append without an answer is given another name, as if its request had been lost."""

    async def write(self: log.Ledger, segment: protocol.Segment) -> None:
        try:
            await self._store.create(segment)
        except protocol.OutcomeUnknown:
            self._last += 1
            await write(self, self._segment(segment.kind, segment.sequence + 1, segment.data, epoch=self._epoch))
            return
        except protocol.SegmentExists as error:
            raise protocol.Deposed("somebody was here") from error
        self._unresolved = None
        self._note_written(segment)

    patch.setattr(log.Ledger, "_write", write)


def epochs_stand_still(patch: Patch) -> None:
    """A takeover without a fence of its own: the leader goes on in the epoch that it found."""
    original = log.Ledger._segment

    def segment(self: log.Ledger, kind: SegmentKind, sequence: int, data: bytes, *, epoch: int) -> protocol.Segment:
        return original(self, kind, sequence, data, epoch=max(1, epoch - 1))

    patch.setattr(log.Ledger, "_segment", segment)


# --- the state ---


def checkpoint_without_runs(patch: Patch) -> None:
    _without(patch, b"runs")


def checkpoint_without_keys(patch: Patch) -> None:
    _without(patch, b"keys")


def _without(patch: Patch, section: bytes) -> None:
    original = snapshot.Snapshot.__iter__

    def chunks(self: snapshot.Snapshot) -> Iterator[bytes]:
        return (chunk for chunk in original(self) if section not in chunk[:8])

    def engines(self: core.Engine) -> snapshot.Snapshot:
        taken = snapshot.Snapshot(self.state)
        taken.__class__ = Lossy
        return taken

    class Lossy(snapshot.Snapshot):
        __iter__ = chunks

    patch.setattr(core.Engine, "snapshot", engines)


def tokens_begin_anew(patch: Patch) -> None:
    original = core.Engine.replay

    def replay(self: core.Engine, facts: Any) -> None:
        original(self, facts)
        self.state.next_token = max(1, self.state.next_token - 1)

    patch.setattr(core.Engine, "replay", replay)


# --- leasing ---


def at_most_once_driven_again(patch: Patch) -> None:
    original = Failures._due_again

    def due_again(self: Failures, dispatch: Any, reason: Any) -> int | None:
        if self._scheduler.spec(dispatch.run.task).guarantee is Guarantee.AT_MOST_ONCE:
            return self._journal.boot_ms
        return original(self, dispatch, reason)

    patch.setattr(Failures, "_due_again", due_again)


def one_attempt_too_many(patch: Patch) -> None:
    original = Failures._due_again

    def due_again(self: Failures, dispatch: Dispatch, reason: Any) -> int | None:
        dispatch.attempts -= 1
        try:
            return original(self, dispatch, reason)
        finally:
            dispatch.attempts += 1

    patch.setattr(Failures, "_due_again", due_again)


def reports_of_others_taken(patch: Patch) -> None:
    """A token is enough; nobody looks whose it is, or whether it is open."""

    def held(self: Leasing, token: int, worker: int, fenced: list[int]) -> Dispatch | None:
        dispatch = self._state.attempts.get(token)
        if dispatch is None:  # it was driven again: surely this is about the new attempt
            return next(iter(self._state.attempts.values()), None)
        return dispatch

    def emit(self: Any, fact: f.Fact) -> None:
        if isinstance(fact, f.SucceededWith) and fact.token not in self._state.attempts:
            (token, *_) = self._state.attempts
            fact = f.SucceededWith(token, fact.result)
        original(self, fact)

    original = Journal.emit
    patch.setattr(Journal, "emit", emit)
    patch.setattr(Leasing, "_held", held)


def leases_on_the_way_forgotten(patch: Patch) -> None:
    """A lease that never arrived is renewed for ever, as if its handler ran."""

    def pull(self: Leasing, command: m.Pull, effects: list[m.Effect]) -> None:
        for dispatch in self._state.attempts.values():
            dispatch.lease_until_ms = self._journal.now_ms + 5_000
        original(self, m.Pull(**{**_fields(command), "received": 10**9}), effects)

    original = Leasing.pull
    patch.setattr(Leasing, "pull", pull)


def worker_is_never_lost(patch: Patch) -> None:
    """An attempt stays open although its worker is gone."""
    patch.setattr(Failures, "lose_all", lambda self, number, why: None)
    original = Leasing.sweep

    def sweep(self: Leasing, effects: list[m.Effect]) -> None:
        for dispatch in self._state.attempts.values():
            dispatch.lease_until_ms = self._journal.now_ms + 5_000
        original(self, effects)

    patch.setattr(Leasing, "sweep", sweep)


def takeover_forgets_what_waits(patch: Patch) -> None:
    def take_over(self: Leasing) -> None:
        until = self._journal.now_ms + self._config.lease_ms
        for dispatch in self._state.attempts.values():
            dispatch.lease_until_ms = until

    patch.setattr(Leasing, "take_over", take_over)


# --- the schedule ---


def watermark_forgotten(patch: Patch) -> None:
    patch.setattr(Entry, "watermark_ms", property(lambda self: self.spec.created_ms))


def overdue_forgotten_at_takeover(patch: Patch) -> None:
    patch.setattr(Overdue, "settle", lambda self, entry, trigger: None)


def timers_not_set_after_an_edit(patch: Patch) -> None:
    original = ClockStarter._join_group

    def join(self: ClockStarter, entry: Entry, trigger: Any, following: int | None) -> None:
        if entry.spec.generation < 3:
            original(self, entry, trigger, following)

    patch.setattr(ClockStarter, "_join_group", join)


def held_instants_forgotten(patch: Patch) -> None:
    """The intake opens again, and what was overdue then is not looked at."""

    def hold(self: Scheduler, reason: str) -> None:
        self.held = reason

    patch.setattr(Scheduler, "hold", hold)


def keys_not_looked_at(patch: Patch) -> None:
    original = Requests.submit

    def submit(self: Requests, command: m.Submit, effects: list[m.Effect]) -> None:
        self._state.keys.clear()
        original(self, command, effects)

    patch.setattr(Requests, "submit", submit)


def leases_end_early(patch: Patch) -> None:
    original = Leasing._lease_end
    patch.setattr(Leasing, "_lease_end", lambda self, dispatch: original(self, dispatch) - 300)


def silence_is_short(patch: Patch) -> None:
    original = Router.declare

    def declare(self: Router, namespace: str, name: str, silence_ms: int) -> None:
        original(self, namespace, name, silence_ms // 2)

    patch.setattr(Router, "declare", declare)


def workers_that_hold_are_forgotten(patch: Patch) -> None:
    """By each checkpoint, beyond the few that it remembers."""

    def prune(state: State) -> None:
        for number in list(state.workers)[: -snapshot._WORKER_MEMORY]:
            state.forget_worker(number)

    patch.setattr(snapshot, "_prune_workers", prune)


def divided_leases_get_the_same_tokens(patch: Patch) -> None:
    original = splitting._halves

    def halves(fact: f.Fact) -> tuple[list[f.Fact], list[f.Fact]] | None:
        parts = original(fact)
        if isinstance(fact, f.Leased) and parts is not None:
            (_, (second,)) = parts
            assert isinstance(second, f.Leased)
            return parts[0], [f.Leased(fact.worker, fact.first_token, second.dispatches)]
        return parts

    patch.setattr(splitting, "_halves", halves)


def named_twice_ends_twice(patch: Patch) -> None:
    class Repeating(dict[Any, Any]):
        @classmethod
        def fromkeys(cls, keys: Any, value: Any = None, /) -> Any:
            return list(keys)

    patch.setattr(leasing, "dict", Repeating, raising=False)


def _fields(command: m.Pull) -> dict[str, Any]:
    return {name: getattr(command, name) for name in command.__struct_fields__}


MUTATIONS: Sequence[Callable[[Patch], None]] = (
    effects_before_facts,
    effects_without_facts_do_not_wait,
    views_before_facts,
    lease_not_looked_at,
    checkpoint_of_what_is_not_durable,
    checkpoint_of_a_moving_state,
    checkpoint_for_more_than_it_has,
    names_become_free,
    rival_taken_for_oneself,
    lost_answer_taken_for_a_failure,
    epochs_stand_still,
    checkpoint_without_runs,
    checkpoint_without_keys,
    tokens_begin_anew,
    at_most_once_driven_again,
    one_attempt_too_many,
    reports_of_others_taken,
    leases_on_the_way_forgotten,
    worker_is_never_lost,
    takeover_forgets_what_waits,
    watermark_forgotten,
    overdue_forgotten_at_takeover,
    timers_not_set_after_an_edit,
    held_instants_forgotten,
    keys_not_looked_at,
    leases_end_early,
    silence_is_short,
    workers_that_hold_are_forgotten,
    divided_leases_get_the_same_tokens,
    named_twice_ends_twice,
    *TIME_MUTATIONS,
)
