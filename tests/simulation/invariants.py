"""The invariants that can be told only when a story is over, or when it has come to rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.simulation.record import Record

from tickwheel_operator.engine import snapshot
from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.spec import Guarantee, TaskSpec
from tickwheel_operator.engine.state import State
from tickwheel_operator.engine.triggers import Trigger
from tickwheel_operator.ledger import facts as f

__all__ = ["check_end", "check_punctual", "check_unstarved"]

_PATIENCE_MS = 400
"""How late a leader may be in a world without faults: a sweep of the engine, a few messages."""


def check_punctual(record: Record, specs: Iterable[TaskSpec], now_ms: int) -> None:
    """In a healed world, with a leader whose clock says `now_ms`: every instant that is due has been settled."""
    for spec in specs:
        task = record.state.by_uid.get(spec.uid)
        if spec.trigger is None or spec.suspend:
            continue
        settled = spec.created_ms if task is None else task.watermark_ms
        due = spec.trigger.last_at_or_before(now_ms - _PATIENCE_MS, settled)
        if due is not None:
            record.violated(f"{spec.name}: the instant {due} is due since {now_ms - due} ms, and nothing became of it")


def check_unstarved(record: Record, mark: int, mark_ms: int) -> None:
    """In a healed world: no run that was ready when the run `mark` was made is overtaken by it or a later one.

    `mark_ms` is what the leader's clock said then. A run of a leader before, whose clock was ahead, is ready later.
    """
    newest = max((attempt.number for attempt in record.attempts.values()), default=0)
    for run in record.state.runs.values():
        if run.number < mark <= newest and not run.dispatch.attempts and run.dispatch.ready_ms < mark_ms:
            record.violated(f"{run.id} (run {run.number}) waits for ever: run {newest}, made later, went before it")


def check_end(record: Record, restored: State, triggers: Mapping[str, Trigger]) -> None:
    """After the quiet phase: nothing is open, nothing was lost, every instant is accounted for."""
    whole = State()
    for fact in record.facts:
        whole.apply(fact)
    if snapshot.dump(whole) != snapshot.dump(restored):
        record.violated("checkpoint and tail give another state than all facts")
    if whole.runs:
        open_runs = ", ".join(f"{run.id} ({run.state})" for run in whole.runs.values())
        record.violated(f"runs never ended: {open_runs}")
    if missing := record.run_ids - record.outcomes.keys():
        record.violated(f"runs were lost: {', '.join(sorted(missing))}")
    _check_dead_letters(record)
    _check_instants(record, triggers)


def _check_dead_letters(record: Record) -> None:
    """Whoever promises at least once gives up only when the attempts are used up."""
    attempts: dict[str, int] = {}
    folding = State()
    for fact in record.facts:
        if isinstance(fact, f.Undelivered):
            run_id = folding.runs[fact.dispatch].id
            attempts[run_id] = attempts.get(run_id, 0) + 1
        folding.apply(fact)
        match fact:
            case f.Leased():
                for number in fact.dispatches:
                    run_id = folding.runs[number].id
                    attempts[run_id] = attempts.get(run_id, 0) + 1
            case f.Returned():
                for token in fact.tokens:
                    attempts[record.attempts[token].run_id] -= 1
            case _:
                pass
    for run_id, outcome in record.outcomes.items():
        uid = run_id.partition(".")[0]
        spec = record.specs[uid]
        allowed, used = spec.retry.limit + 1, attempts.get(run_id, 0)
        if uid in record.invalid:
            continue
        if used > allowed:
            record.violated(f"{run_id} had {used} attempts of {allowed}")
        if outcome is RunState.FAILED and spec.guarantee is Guarantee.AT_LEAST_ONCE and used < allowed:
            record.violated(f"{run_id} is a dead letter after {used} of {allowed} attempts")


def _check_instants(record: Record, triggers: Mapping[str, Trigger]) -> None:
    """Between two armings, each instant was fired once or is in a skip's count."""
    names: dict[int, str] = {}
    periods: dict[int, tuple[str, int]] = {}
    fired: dict[int, int] = {}
    skipped: dict[int, int] = {}
    until: dict[int, int] = {}

    def close(task: int) -> None:
        schedule, start = periods.pop(task)
        trigger = triggers.get(schedule)
        expected = 0 if trigger is None else trigger.count_between(start, until[task], 10**9)
        if expected != fired[task] + skipped[task]:
            record.violated(
                f"{names[task]}: {expected} instants of '{schedule}' in ({start}, {until[task]}], but {fired[task]} "
                f"were fired and {skipped[task]} skipped"
            )

    def settled(task: int, until_ms: int) -> None:
        if until_ms <= periods[task][1]:
            record.violated(f"{names[task]}: the instant {until_ms} was settled again")
        until[task] = max(until[task], until_ms)

    for fact in record.facts:
        match fact:
            case f.TaskNamed() | f.Armed():
                if fact.task in periods:
                    close(fact.task)
                if isinstance(fact, f.TaskNamed):
                    names[fact.task] = fact.name
                periods[fact.task] = (fact.schedule, fact.watermark_ms)
                fired[fact.task], skipped[fact.task], until[fact.task] = 0, 0, fact.watermark_ms
            case f.Fired():
                for task in fact.tasks:
                    fired[task] += 1
                    settled(task, fact.scheduled_ms)
            case f.Skipped():
                skipped[fact.task] += fact.count
                settled(fact.task, fact.until_ms)
            case f.TaskForgotten():
                close(fact.task)
            case _:
                pass
    for task in list(periods):
        close(task)
