"""Ways to break what time needs: early leases, overlaps, cancels, tasks that follow others, and backfills.

`mutations.py` adds them to its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from tickwheel_operator.engine import core
from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.dispatch import waiting
from tickwheel_operator.engine.dispatch.failures import Failures
from tickwheel_operator.engine.dispatch.leasing import Leasing
from tickwheel_operator.engine.dispatch.routing import Router
from tickwheel_operator.engine.model.execution import backfill
from tickwheel_operator.engine.model.execution.backfill import Backfill
from tickwheel_operator.engine.model.runs import Dispatch, End, Run
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.schedule import backfilling, edits, jitter, overlap
from tickwheel_operator.engine.schedule.backfilling import Backfills
from tickwheel_operator.engine.schedule.groups import Entry
from tickwheel_operator.engine.schedule.overlap import Overlaps
from tickwheel_operator.engine.schedule.scheduler import Scheduler
from tickwheel_operator.engine.schedule.starters import completion
from tickwheel_operator.engine.schedule.starters.fixed_delay import Delay, DelayStarter
from tickwheel_operator.engine.sources import FixedDelay, Outcome
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger import log, splitting

__all__ = ["TIME_MUTATIONS"]

Patch = pytest.MonkeyPatch


def replaced_run_not_waited_for(patch: Patch) -> None:
    """`Replace` starts at once."""
    original = Overlaps.enter

    def enter(self: Overlaps, run: Run, spec: TaskSpec) -> list[Run]:
        replaced = original(self, run, spec)
        if run.held and replaced and run.group is not None:
            del run.group.held[run.number]
            run.group.admitted[run.number] = run
            run.held = False
        return replaced

    patch.setattr(Overlaps, "enter", enter)


def held_runs_all_admitted(patch: Patch) -> None:
    """One end lets in all that wait."""

    def admit(self: Overlaps, group: Any, spec_of: Any) -> list[Run]:
        admitted = [run for run in group.held.values() if run.dispatches]
        for run in admitted:
            run.held = False
            group.admitted[run.number] = run
        group.held.clear()
        return admitted

    patch.setattr(Overlaps, "_admit", admit)


def overlaps_not_known_after_a_takeover(patch: Patch) -> None:
    patch.setattr(Overlaps, "regroup", lambda self, runs, spec_of: [])


def keys_of_groups_ignored(patch: Patch) -> None:
    """Every task is counted alone."""
    patch.setattr(overlap, "_group_key", lambda spec, parameters: spec.uid)


def cancelled_before_the_handler_stops(patch: Patch) -> None:
    """The run ends when it is asked to."""
    original = Leasing.cancel

    def cancel(self: Leasing, run: Run, why: str, effects: list[m.Effect]) -> None:
        original(self, run, why, effects)
        if run.dispatches and run.cancelling is not None and run.number in self._state.runs:
            self._journal.emit(f.Cancelled(run.number, why))

    patch.setattr(Leasing, "cancel", cancel)


def cancel_forgotten_at_a_takeover(patch: Patch) -> None:
    original = core.Engine.replay

    def replay(self: core.Engine, facts: Any) -> None:
        original(self, [fact for fact in facts if not isinstance(fact, f.CancelAsked)])

    patch.setattr(core.Engine, "replay", replay)


def cancelled_run_driven_again(patch: Patch) -> None:
    """Its attempt failed, so it is tried again."""
    original = Failures.fail

    def fail(self: Failures, dispatch: Dispatch, *args: Any, **named: Any) -> None:
        dispatch.run.cancelling = None
        original(self, dispatch, *args, **named)

    patch.setattr(Failures, "fail", fail)


def instant_not_told_to_the_worker(patch: Patch) -> None:
    """An early lease starts when it arrives."""
    original = Leasing._delivery

    def delivery(self: Leasing, dispatch: Dispatch) -> m.Delivery:
        return msgspec.structs.replace(original(self, dispatch), not_before_ms=0)

    patch.setattr(Leasing, "_delivery", delivery)


def early_leases_for_any_clock(patch: Patch) -> None:
    original = Router.update

    def update(self: Router, worker: Any, seen: m.WorkerSeen) -> None:
        original(self, worker, seen)
        worker.early = True

    patch.setattr(Router, "update", update)


def leases_by_the_wall_clock(patch: Patch) -> None:
    original = core.Engine.handle

    def handle(self: core.Engine, command: m.Command, now_ms: int, boot_ms: int | None = None) -> m.Output:
        return original(self, command, now_ms, self.journal.boot_ms + max(0, now_ms - self.journal.wall_ms))

    patch.setattr(core.Engine, "handle", handle)
    patch.setattr(core.Engine, "pause_ms", lambda self, now_ms, boot_ms=None: 10)


def end_and_what_follows_divided(patch: Patch) -> None:
    """Each fact is in a segment of its own."""

    def encoded(facts: Sequence[f.Fact], *, max_bytes: int) -> Iterator[bytes]:
        for fact in facts:
            yield from splitting.encoded([fact], max_bytes=max_bytes)

    patch.setattr(log, "encoded", encoded)


def end_of_followed_run_unheard(patch: Patch) -> None:
    """Some ends make no following run, and no skip."""
    original = completion.CompletionStarter._follow

    def follow(self: completion.CompletionStarter, entry: Entry, ended: Run) -> None:
        if not entry.spec.suspend:
            original(self, entry, ended)

    patch.setattr(completion.CompletionStarter, "_follow", follow)


def followed_twice(patch: Patch) -> None:
    """A failure counts as a success."""
    patch.setattr(completion, "_OUTCOMES", dict.fromkeys(m.RunState, Outcome.SUCCEEDED))


def overlap_skips_not_counted(patch: Patch) -> None:
    original = Scheduler.skip

    def skip(self: Scheduler, task: Any, until_ms: int, count: int, reason: f.SkipReason) -> None:
        original(self, task, until_ms, count - (reason is f.SkipReason.OVERLAP), reason)

    patch.setattr(Scheduler, "skip", skip)


def overdue_dropped_by_an_edit_not_counted(patch: Patch) -> None:
    original = Scheduler.skip

    def skip(self: Scheduler, task: Any, until_ms: int, count: int, reason: f.SkipReason) -> None:
        if reason is not f.SkipReason.EDITED:
            original(self, task, until_ms, count, reason)

    patch.setattr(Scheduler, "skip", skip)


def once_of_the_past_counts_from_its_edit(patch: Patch) -> None:
    patch.setattr(edits, "once_at", lambda trigger: None)


def fixed_delay_armed_while_open(patch: Patch) -> None:
    def following(self: DelayStarter, entry: Entry, since_ms: int = 0) -> Delay | None:
        source = entry.spec.source
        return Delay(entry, entry.watermark_ms + source.delay_ms) if isinstance(source, FixedDelay) else None

    patch.setattr(DelayStarter, "_next", following)


def fixed_delay_not_resumed(patch: Patch) -> None:
    """A delay is counted from the instant, not from the end."""
    original = DelayStarter._next

    def following(self: DelayStarter, entry: Entry, since_ms: int = 0) -> Delay | None:
        source, found = entry.spec.source, original(self, entry, since_ms)
        if found is not None and isinstance(source, FixedDelay):
            found.instant_ms = entry.watermark_ms + source.delay_ms
        return found

    patch.setattr(DelayStarter, "_next", following)


def backfill_cursor_not_restored(patch: Patch) -> None:
    """A new leader begins the span anew."""
    original = Backfills.resume

    def resume(self: Backfills) -> None:
        for run in self._state.runs.values():
            if isinstance(run.execution, Backfill):
                run.execution.until_ms = run.execution.from_ms - 1
                run.task.backfilled = ()
        original(self)

    patch.setattr(Backfills, "resume", resume)


def backfills_made_up_for_twice(patch: Patch) -> None:
    """Spans that overlap do not know of each other."""
    patch.setattr(backfilling, "covered_until", lambda spans, instant_ms: instant_ms)


def backfills_failures_are_kept(patch: Patch) -> None:
    """What did not succeed counts as made up for."""
    patch.setattr(backfill, "uncovered", lambda spans, instant_ms: spans)


def backfill_without_a_limit(patch: Patch) -> None:
    original = Backfills.advance

    def advance(self: Backfills, run: Run) -> None:
        if isinstance(run.execution, Backfill):
            run.execution.max_parallel += 1
        original(self, run)

    patch.setattr(Backfills, "advance", advance)


def backfills_failures_forgotten(patch: Patch) -> None:
    original = Backfill.ended
    patch.setattr(Backfill, "ended", lambda self, end: original(self, End(m.RunState.SUCCEEDED)))


def jitter_forgotten(patch: Patch) -> None:
    patch.setattr(jitter, "jitter_ms", lambda uid, scheduled_ms, most_ms: 0)


def jitter_of_what_is_caught_up_forgotten(patch: Patch) -> None:
    original = jitter.jittered_start_ms

    def start_ms(spec: TaskSpec, scheduled_ms: int, made_ms: int, threshold_ms: int) -> int:
        return original(spec, scheduled_ms, scheduled_ms, threshold_ms)

    patch.setattr(waiting, "jittered_start_ms", start_ms)


def start_by_a_clock_that_stands_still(patch: Patch) -> None:
    """What starts later starts by the instants of the engine, which are held while a clock that was set back catches
    up, instead of by the clock that the worker sees."""
    patch.setattr(Leasing, "_not_before", lambda self, dispatch: dispatch.ready_ms)


def ended_runs_stay_in_their_group(patch: Patch) -> None:
    """Those of other tasks than the one that is looked at."""
    original = Overlaps.leave

    def leave(self: Overlaps, run: Run, spec_of: Any) -> list[Run]:
        return [] if run.number % 5 == 0 else original(self, run, spec_of)

    patch.setattr(Overlaps, "leave", leave)


def delayed_runs_start_at_once(patch: Patch) -> None:
    original = State._requested

    def requested(self: State, fact: f.Requested) -> None:
        original(self, fact)
        self.runs[fact.run].dispatches[0].ready_ms = self.clock_ms

    patch.setattr(State, "_requested", requested)


TIME_MUTATIONS: Sequence[Callable[[Patch], None]] = (
    replaced_run_not_waited_for,
    held_runs_all_admitted,
    overlaps_not_known_after_a_takeover,
    keys_of_groups_ignored,
    cancelled_before_the_handler_stops,
    cancel_forgotten_at_a_takeover,
    cancelled_run_driven_again,
    instant_not_told_to_the_worker,
    early_leases_for_any_clock,
    leases_by_the_wall_clock,
    end_and_what_follows_divided,
    end_of_followed_run_unheard,
    followed_twice,
    overlap_skips_not_counted,
    overdue_dropped_by_an_edit_not_counted,
    once_of_the_past_counts_from_its_edit,
    fixed_delay_armed_while_open,
    fixed_delay_not_resumed,
    backfill_cursor_not_restored,
    backfills_made_up_for_twice,
    backfills_failures_are_kept,
    backfill_without_a_limit,
    backfills_failures_forgotten,
    jitter_forgotten,
    jitter_of_what_is_caught_up_forgotten,
    start_by_a_clock_that_stands_still,
    ended_runs_stay_in_their_group,
    delayed_runs_start_at_once,
)
