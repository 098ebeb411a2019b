"""A checkpoint and the facts after it give the state that all facts give."""

from __future__ import annotations

import copy
import random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.simulation.whole import differences, volatile_fields
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.model import snapshot
from tickwheel_operator.engine.model.execution.backfill import Backfill
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.spec import Backoff, RetryPolicy
from tickwheel_operator.ledger import facts as f

STEPS = st.lists(
    st.sampled_from(["tick", "pull", "succeed", "result", "fail", "return", "submit", "gone"]), max_size=40
)


def _play(steps: list[str]) -> Driver:
    retry = RetryPolicy(limit=1, backoff=Backoff(initial_ms=700))
    driver = Driver.leading(task_spec("a"), task_spec("b", retry=retry))
    held: list[int] = []
    for number, step in enumerate(steps):
        driver.now_ms = T0 + number * 400
        match step:
            case "tick":
                driver.do(m.Tick())
            case "pull":
                held += [d.token for d in deliveries(driver.pull(free=2, received=max(held, default=0)))]
            case "submit":
                driver.submit(f"k{number % 5}", name="a", parameters=b'{"n":1}')
            case "gone":
                driver.do(m.WorkerGone(key=m.WorkerKey("shops", "pool", "w0")))
                held.clear()
            case _ if held:
                token = held.pop(0)
                what = {
                    "succeed": {"succeeded": [token]},
                    "result": {"results": [(token, b'{"x":[1,2]}')]},
                    "fail": {"failed": [m.FailedAttempt(token=token, error_type="E", message="m", traceback="t")]},
                    "return": {"returned": [token]},
                }[step]
                driver.report(**what)
            case _:
                pass
    return driver


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, cut=st.integers(0, 200))
def test_a_checkpoint_and_its_tail_give_the_state_of_all_facts(steps: list[str], cut: int) -> None:
    facts = _play(steps).facts
    cut = min(cut, len(facts))
    whole = State()
    for fact in facts:
        whole.apply(fact)

    before = Engine(now_ms=T0)
    before.replay(facts[:cut])
    after = Engine(now_ms=T0)
    after.restore(before.snapshot())
    after.replay(facts[cut:])

    assert differences(after.state, whole) == []


def _richer(chance: random.Random) -> list[f.Fact]:
    """A story with every kind of fact that changes what is there."""
    steps = chance.choices(["tick", "pull", "succeed", "result", "fail", "return", "submit", "gone"], k=60)
    facts = [fact for fact in _play(steps).facts if not isinstance(fact, f.TaskForgotten)]
    facts += [f.TaskNamed(100 + n, f"u{n}", "shops", f"t{n}", "", 0) for n in range(6)]
    state = State()
    for fact in facts:
        state.apply(fact)
    for _ in range(200):
        runs, held, tasks = list(state.runs.values()), list(state.attempts), list(state.tasks)
        spans = [run for run in runs if isinstance(run.execution, Backfill)]
        free = [run.number for run in runs if run.dispatches and not run.dispatches[0].token]
        many: list[f.Fact] = [f.Clock(state.clock_ms + 500)]
        for task in tasks:
            many += [
                f.Fired(state.clock_ms, state.next_run, [task]),
                f.Skipped(task, state.clock_ms, 2, f.SkipReason.DEADLINE),
                f.Armed(task, "other", state.clock_ms),
                f.BackfillStarted(state.next_run, task, 0, 5_000, 2, 5, key=f"b{state.next_run}"),
            ]
        if len(tasks) > 1 and not state.tasks[tasks[0]].runs:
            many.append(f.TaskForgotten(tasks[0]))
        for run in spans:
            until = run.execution.until_ms + 1_000
            many += [f.Backfilled(run.number, until, state.next_run, [until], 1), f.BackfillEnded(run.number)]
        for number in free:
            many += [f.Undelivered(number, chance.choice((0, 9))), f.CancelAsked(number, "m"), f.Cancelled(number, "m")]
            if state.workers:
                many.append(f.Leased(min(state.workers), state.next_token, [number]))
        for token in held:
            many += [f.Succeeded([token]), f.SucceededWith(token, b"r" * 30), f.Returned([token])]
            many.append(f.Failed(token, next(iter(f.FailureReason)), chance.choice((0, 9)), "E", "m", "t" * 20))
        kind = chance.choice(sorted({type(fact) for fact in many}, key=str))
        fact = chance.choice([fact for fact in many if type(fact) is kind])
        state.apply(fact)
        facts.append(fact)
    return facts


@pytest.mark.parametrize("seed", range(40))
def test_a_snapshot_is_of_one_moment_however_much_changes_while_it_is_taken(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(snapshot, "_ROWS_PER_CHUNK", 1)
    facts = _richer(chance)
    cut = len(facts) - chance.randrange(150)
    state = State(max_keys=3, max_detail_bytes=60)
    for fact in facts[:cut]:
        state.apply(fact)
    at_once = State(max_keys=3, max_detail_bytes=60)
    for fact in facts[:cut]:
        at_once.apply(fact)
    chunks = iter(snapshot.Snapshot(state))
    taken = []
    for number, fact in enumerate(facts[cut:]):
        if number % 12 == 0 and (chunk := next(chunks, None)) is not None:
            taken.append(chunk)
        state.apply(fact)

    loaded = State(max_keys=3, max_detail_bytes=60)
    snapshot.load(loaded, [*taken, *chunks])
    assert differences(loaded, at_once) == []
    assert state.watcher is None


def _with_everything() -> list[f.Fact]:
    """Two tasks; runs 1 to 5 of the first, of which 1, 2 and 5 are leased; its backfill 6 with the runs 7 and 8, of
    which 7 is leased; a backfill 9 without runs; a task without runs."""
    return [
        f.Clock(T0),
        f.TaskNamed(1, "u1", "shops", "t1", "every minute", 0),
        f.TaskNamed(2, "u2", "shops", "t2", "every minute", 0),
        f.WorkerNamed(1, "shops", "pool", "w", "i"),
        f.Fired(T0 - 9_000, 1, [1]),
        f.Fired(T0 - 8_000, 2, [1]),
        f.Fired(T0 - 7_000, 3, [1]),
        f.Submitted(4, 1, T0, "k4", "object-4"),
        f.Submitted(5, 1, T0, "k5"),
        f.BackfillStarted(6, 1, 0, 9_000, 2, 9, "b6"),
        f.Backfilled(6, 2_000, 7, [1_000, 2_000]),
        f.BackfillStarted(9, 1, 0, 9_000, 2, 9, "b9"),
        f.Leased(1, 1, [1, 2, 5, 7]),
        f.Clock(T0 + 500),
    ]


_LATER = T0 + 60_000
_ERROR = f.FailureReason.ERROR
_EACH_KIND: list[f.Fact] = [
    f.Clock(_LATER),
    f.TaskNamed(3, "u3", "shops", "t3", "", 0),
    f.TaskForgotten(2),
    f.Armed(1, "every hour", _LATER),
    f.Fired(_LATER, 10, [1, 2]),
    f.Submitted(10, 1, _LATER, "k10"),
    f.Skipped(1, _LATER, 2, f.SkipReason.DEADLINE),
    f.WorkerNamed(2, "shops", "pool", "w", "i2"),
    f.Leased(1, 5, [3, 4, 8]),
    f.Succeeded([1, 3, 4]),
    f.SucceededWith(1, b"[1]"),
    f.SucceededWith(4, b"[1]"),
    f.Failed(1, _ERROR, _LATER, "E", "m", "t"),
    f.Failed(1, _ERROR, 0, "E", "m", "t"),
    f.Failed(4, _ERROR, 0, "E", "m", "t"),
    f.Returned([1, 4]),
    f.Cancelled(4, "asked"),
    f.Cancelled(7, "asked"),
    f.Undelivered(3, _LATER),
    f.Undelivered(3, 0),
    f.Undelivered(8, 0),
    f.Requested(10, 1, _LATER, _LATER, "k10", f.Origin.REQUEST),
    f.Requested(10, 1, _LATER, _LATER, "k10", f.Origin.COMPLETION),
    f.BackfillStarted(10, 1, 0, 9_000, 2, 9, "b10"),
    f.Backfilled(6, 5_000, 10, [3_000, 5_000], 1),
    f.BackfillEnded(9),
    f.CancelAsked(1, "asked"),
    f.Recovered(1, _LATER, _LATER, _LATER, 30, 20, 10, [(f.SkipReason.DEADLINE, 4, _LATER)], 90),
]
"""Of each kind of fact those that change something else."""


def test_every_kind_of_fact_is_among_those_that_come_while_a_snapshot_is_taken() -> None:
    assert {type(fact) for fact in _EACH_KIND} == set(get_args(f.Fact))


@pytest.mark.parametrize("fact", _EACH_KIND, ids=lambda fact: type(fact).__name__)
def test_a_snapshot_that_was_begun_before_a_fact_knows_nothing_of_it(fact: f.Fact) -> None:
    """Or the fact, which is replayed after the checkpoint, would count twice."""
    state, before, after = State(), State(), State()
    for earlier in _with_everything():
        state.apply(earlier)
        before.apply(earlier)
        after.apply(earlier)
    taken = snapshot.Snapshot(state)
    state.apply(fact)
    after.apply(fact)

    loaded = State()
    snapshot.load(loaded, list(taken))

    assert differences(loaded, before) == []
    loaded.apply(fact)
    assert differences(loaded, after) == []


def test_one_snapshot_of_a_state_is_taken_at_a_time() -> None:
    engine = _play(["tick", "submit"]).engine
    first = iter(engine.snapshot())
    next(first)
    list(engine.snapshot())

    with pytest.raises(RuntimeError, match="another snapshot"):
        list(first)


def test_a_leaders_own_state_is_the_fold_of_its_facts() -> None:
    driver = _play(["tick", "pull", "tick", "pull", "fail", "submit", "pull", "result", "tick", "tick", "pull"])
    folded = State()
    for fact in driver.facts:
        folded.apply(fact)

    assert differences(folded, driver.engine.state) == []


def test_what_is_compared_is_all_that_is_durable() -> None:
    assert volatile_fields(State) == {"ended", "outcomes", "touched", "news", "watcher"}
    assert "cancelling" not in volatile_fields(Run)
    assert {"group", "held", "delayed"} <= volatile_fields(Run)

    one, other = State(), State()
    for state in (one, other):
        state.apply(f.TaskNamed(1, "u", "shops", "t", "", 0))
        state.apply(f.Submitted(1, 1, T0, "k", parameters=b"{}"))
    assert differences(one, other) == []
    other.runs[1].parameters = b'{"n":1}'
    other.tasks[1].last_ended_ms = 7
    assert [line.partition(":")[0] for line in differences(one, other)] == [
        "State.by_uid['u'].last_ended_ms",
        "State.by_uid['u'].runs[1].parameters",
    ]


def test_two_places_that_lead_to_one_object_lead_to_one_in_the_other_state_too() -> None:
    one, other = State(), State()
    for state in (one, other):
        state.apply(f.TaskNamed(1, "u", "shops", "t", "", 0))
    other.by_uid["u"] = copy.copy(other.tasks[1])

    assert any("shared" in line for line in differences(one, other))


def test_a_checkpoint_keeps_the_latest_thousand_workers_and_all_that_hold_work() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    for number in range(1_100):
        driver.submit(f"k{number}")
        [delivery] = deliveries(driver.pull(f"w{number}", free=1))
        if number != 7:
            driver.report(f"w{number}", succeeded=[delivery.token])
    restored = State()
    snapshot.load(restored, snapshot.dump(driver.engine.state))

    assert differences(restored, driver.engine.state) == []
    assert list(restored.workers) == [8, *range(101, 1_101)]
