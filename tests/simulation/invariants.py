"""The invariants that can be told only when a story is over, or when it has come to rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from tests.simulation.record import Record
from tests.simulation.tasks import unsettled_since
from tests.simulation.whole import WORKERS, differences

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.model.places import Place
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.sources import Completion, Outcome
from tickwheel_operator.engine.spec import Guarantee, TaskSpec
from tickwheel_operator.engine.triggers import Trigger, once_at
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

__all__ = ["check_end", "check_followed", "check_punctual", "check_restored", "check_unstarved"]

_PATIENCE_MS = 400
"""How late a leader may be in a world without faults: a sweep of the engine, a few messages."""


def check_punctual(record: Record, specs: Iterable[TaskSpec], now_ms: int) -> None:
    """In a healed world, with a leader whose clock says `now_ms`: every instant that is due has been settled."""
    for spec in specs:
        task = record.state.by_uid.get(spec.uid)
        if spec.trigger is None or spec.suspend:
            continue
        settled = unsettled_since(spec.trigger, spec.created_ms) if task is None else task.watermark_ms
        due = spec.trigger.last_at_or_before(now_ms - _PATIENCE_MS, settled)
        if due is not None:
            record.violated(f"{spec.name}: the instant {due} is due since {now_ms - due} ms, and nothing became of it")


def check_unstarved(record: Record, mark: int, mark_ms: int, known: State) -> None:
    """In a healed world: no run that was ready when the run `mark` was made is overtaken by it or a later one.

    `known` is the leader's state: it knows which runs wait for something else. `mark_ms` is what its
    clock said then. A run of a leader before, whose clock was ahead, is ready later.
    """
    newest = max((attempt.number for attempt in record.attempts.values() if not attempt.front), default=0)
    for run in record.state.runs.values():
        live = known.runs.get(run.number)
        limited = run.task.uid in record.limited
        if (
            live is None
            or limited
            or live.delayed
            or not live.dispatches
            or live.parent
            or (live.dispatches[0].timer is not None and live.dispatches[0].place is not Place.QUEUED)
        ):
            continue
        if run.number < mark <= newest and not run.dispatches[0].attempts and run.dispatches[0].ready_ms < mark_ms:
            record.violated(f"{run.id} (run {run.number}) waits for ever: run {newest}, made later, went before it")


def check_restored(record: Record, restored: State) -> State:
    """Whatever is open: what a new leader restores is the fold of all facts, which is returned."""
    whole = State()
    for fact in record.facts:
        whole.apply(fact)
    if found := differences(restored, whole, but=WORKERS):
        record.violated(f"checkpoint and tail give another state than all facts: {found}")
    return whole


def check_end(record: Record, restored: State, triggers: Mapping[str, Collection[Trigger]]) -> None:
    """After the quiet phase: nothing is open, nothing was lost, every instant is accounted for."""
    whole = check_restored(record, restored)
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
        if uid in record.invalid or run_id in record.rules.spans_asked:
            continue
        if used > allowed:
            record.violated(f"{run_id} had {used} attempts of {allowed}")
        if outcome is RunState.FAILED and spec.guarantee is Guarantee.AT_LEAST_ONCE and used < allowed:
            record.violated(f"{run_id} is a dead letter after {used} of {allowed} attempts")


def check_followed(record: Record, tasks: Mapping[str, TaskSpec]) -> None:
    """Each end of a run has one run, or one skip, of each task that follows it and was there all the time."""
    gone = {fact.task for fact in record.facts if isinstance(fact, f.TaskForgotten)}
    numbers = {fact.uid: fact.task for fact in record.facts if isinstance(fact, f.TaskNamed)}
    for uid, spec in tasks.items():
        number = numbers.get(uid)
        if not isinstance(spec.source, Completion) or number in gone or uid in record.invalid:
            continue
        wanted = [
            run_id
            for run_id, name, outcome, counts in record.rules.ends
            if name == spec.source.task
            and counts
            and (
                spec.source.outcome is Outcome.ANY
                or (spec.source.outcome, outcome)
                in ((Outcome.SUCCEEDED, RunState.SUCCEEDED), (Outcome.FAILED, RunState.FAILED))
            )
        ]
        made = {
            fact.key
            for fact in record.facts
            if isinstance(fact, f.Requested) and fact.task == number and fact.origin is Origin.COMPLETION
        }
        skipped = sum(fact.count for fact in record.facts if isinstance(fact, f.Skipped) and fact.task == number)
        if wrong := made - set(wanted):
            record.violated(f"{spec.name} followed {sorted(wrong)}, of which it should not")
        # The end of a deleted task's runs may be told while nobody knows who follows them.
        doubtful = sum(run_id in record.ended_with_task for run_id in wanted)
        if not len(wanted) - doubtful <= len(made) + skipped <= len(wanted):
            missed = sorted(set(wanted) - made)
            record.violated(
                f"{spec.name} follows {len(wanted)} ends, but made {len(made)} runs and skipped {skipped}: {missed}"
            )


def _passed_over(triggers: Collection[Trigger], watermark_ms: int) -> int | None:
    """The instant of a `once` that would neither run nor be in a count; None: there is none."""
    ones = [at_ms for trigger in triggers if (at_ms := once_at(trigger)) is not None]
    return next((at_ms for at_ms in ones if at_ms <= watermark_ms), None)


def _check_instants(record: Record, triggers: Mapping[str, Collection[Trigger]]) -> None:
    """Since its creation, and between two armings, each instant was fired once or is in a skip's count."""
    names: dict[int, str] = {}
    periods: dict[int, tuple[str, int]] = {}
    fired: dict[int, int] = {}
    skipped: dict[int, int] = {}
    until: dict[int, int] = {}

    def close(task: int) -> None:
        schedule, start = periods.pop(task)
        counts = [trigger.count_between(start, until[task], 10**9) for trigger in triggers.get(schedule, ())]
        if not counts:
            return  # It follows others: `check_followed` counts, and no instants of time are settled.
        low, expected = min(counts), max(counts)
        if not low <= fired[task] + skipped[task] <= expected:
            record.violated(
                f"{names[task]}: {expected} instants of '{schedule}' in ({start}, {until[task]}], but {fired[task]} "
                f"were fired and {skipped[task]} skipped"
            )

    def settled(task: int, until_ms: int) -> None:
        if periods[task][0] not in triggers:
            return
        if until_ms <= periods[task][1]:
            record.violated(f"{names[task]}: the instant {until_ms} was settled again")
        until[task] = max(until[task], until_ms)

    for fact in record.facts:
        match fact:
            case f.TaskNamed() | f.Armed():
                if fact.task in periods:
                    until[fact.task] = max(until[fact.task], fact.watermark_ms)
                    close(fact.task)
                if isinstance(fact, f.TaskNamed):
                    names[fact.task] = fact.name
                    created_ms, until_ms = record.specs[fact.uid].created_ms, fact.watermark_ms
                    overlooked = [
                        trigger.count_between(unsettled_since(trigger, created_ms), until_ms, 10**9)
                        for trigger in triggers.get(fact.schedule, ())
                    ]
                    if overlooked and min(overlooked):
                        record.violated(f"{fact.name}: {min(overlooked)} instants since its creation were overlooked")
                elif passed := _passed_over(triggers.get(fact.schedule, ()), fact.watermark_ms):
                    record.violated(
                        f"{names[fact.task]} was armed at {fact.watermark_ms}, past its one instant {passed}"
                    )
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
