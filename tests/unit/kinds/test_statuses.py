"""What a status says, and when it is written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tickwheel_operator.api.calendar import CalendarStatus
from tickwheel_operator.api.scheduledtask import ScheduledTaskStatus
from tickwheel_operator.api.taskrun import TaskRunStatus
from tickwheel_operator.api.workerpool import WorkerPoolStatus
from tickwheel_operator.engine.cron import parse
from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.read.views import HandlerState, PoolView, RunView, TaskView
from tickwheel_operator.engine.sources import ByClock, ByHand, Completion, FixedDelay
from tickwheel_operator.engine.spec import CalendarUse, TaskSpec
from tickwheel_operator.engine.triggers import CronTrigger, FilteredTrigger, OnceTrigger
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.filters import Filter
from tickwheel_operator.handlers.known import HandlerSchema
from tickwheel_operator.kinds import KINDS
from tickwheel_operator.kinds.calendar import CALENDAR, SeenCalendar
from tickwheel_operator.kinds.registered import MOST_SHOWN_BYTES, registered_handlers
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK, has_ended, task_status
from tickwheel_operator.kinds.seen import Fault
from tickwheel_operator.kinds.stored import NOTHING
from tickwheel_operator.kinds.taskrun import TASK_RUN, run_status
from tickwheel_operator.kinds.workerpool import SeenPool, pool_status
from tickwheel_operator.projection.writing import changes, conditions_differ, with_transition_times

NOW = "2026-01-01T00:00:00Z"
SKIPS = (("Deadline", 2, 60_000), ("Misfired", 3, 1_500))


def a_task(fault: tuple[str, str] | None = None, **more: Any) -> Any:
    """`trigger` is short for a `source` by the clock."""
    trigger = more.pop("trigger", CronTrigger("0 4 * * *"))
    fields = {"source": ByHand() if trigger is None else ByClock(trigger), **more}
    spec = TaskSpec(uid="u", namespace="ns", name="t", generation=2, created_ms=0, pool="p", handler="h", **fields)
    why = None if fault is None else SimpleNamespace(reason=fault[0], message=fault[1])
    return SimpleNamespace(seen=SimpleNamespace(uid="u", generation=2, spec=spec), fault=why)


def a_calendar(fault: Fault | None = None) -> SeenCalendar:
    return SeenCalendar(kind="Calendar", uid="u", namespace="ns", name="c", generation=3, fault=fault)


def a_run(state: RunState = RunState.SUCCEEDED, **more: Any) -> RunView:
    fields: dict[str, Any] = {
        "name": "t-1", "run_id": "u.1", "requested": False, "state": state, "scheduled_ms": 1_000, "created_ms": 1_001,
        "started_ms": 1_003, "ended_ms": 2_500 if state.is_final else 0, "attempts": 1, "worker": "p-0",
    }  # fmt: skip
    return RunView(**{**fields, **more})


def a_view(**more: Any) -> TaskView:
    fields: dict[str, Any] = {
        "uid": "u", "namespace": "ns", "name": "t", "generation": 2, "armed": True, "next_ms": 14_400_000,
        "last_ms": 1_000, "active": 0, "succeeded": 1, "failed": 0, "cancelled": 0, "skipped": 0,
        "handler": HandlerState(1, 1), "runs": [a_run()],
    }  # fmt: skip
    return TaskView(**{**fields, **more})


def a_pool(*handlers: str, workers: int = 1) -> PoolView:
    return PoolView("ns", "p", workers, 0, 4, 1, 2, 0.25, 0.5, list(handlers))


def condition(status: dict[str, Any], kind: str) -> Any:
    return next(c for c in status["conditions"] if c["type"] == kind)


def as_stored(kind: str, status: dict[str, Any]) -> Any:
    return KINDS[kind].stored({name: value for name, value in status.items() if value is not None})


def test_an_armed_task_says_what_was_and_what_comes() -> None:
    status = task_status(a_task(), a_view(), a_pool("h"))
    assert condition(status, "Ready")["status"] == "True"
    assert condition(status, "Stalled")["status"] == "False"
    assert status["nextScheduleTime"] == "1970-01-01T04:00:00Z"
    assert status["lastScheduleTime"] == "1970-01-01T00:00:01Z"
    assert status["lastRun"] == {"name": "t-1", "state": "Succeeded", "time": "1970-01-01T00:00:02.500Z"}
    assert status["counters"] == {"succeeded": 1, "failed": 0, "cancelled": 0, "skipped": 0}


def test_a_stalled_task_says_why_and_has_no_next_instant() -> None:
    status = task_status(a_task(("InvalidSpec", "spec.x: no")), a_view(), a_pool("h"))
    assert condition(status, "Ready")["status"] == "False"
    assert (condition(status, "Stalled")["reason"], condition(status, "Stalled")["message"]) == (
        "InvalidSpec",
        "spec.x: no",
    )
    assert status["nextScheduleTime"] is None


def test_a_missing_handler_names_the_pool_and_what_is_registered_and_leaves_ready_alone() -> None:
    stalled = condition(task_status(a_task(), a_view(), a_pool("x", "y")), "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "HandlerNotRegistered")
    assert "pool p" in stalled["message"] and "x, y" in stalled["message"]
    assert condition(task_status(a_task(), a_view(), a_pool("x")), "Ready")["status"] == "True"


def test_without_live_workers_no_handler_is_missed() -> None:
    assert condition(task_status(a_task(), a_view(), a_pool(workers=0)), "Stalled")["status"] == "False"
    assert condition(task_status(a_task(), a_view(), None), "Stalled")["status"] == "False"


def test_all_statuses_fit_the_schema_of_their_kind() -> None:
    pool = SeenPool(kind="WorkerPool", uid="u", namespace="ns", name="p", generation=1)
    for model, kind, status in (
        (ScheduledTaskStatus, "ScheduledTask", task_status(a_task(), a_view(), a_pool("h"))),
        (WorkerPoolStatus, "WorkerPool", pool_status(pool, a_pool("h"))),
        (WorkerPoolStatus, "WorkerPool", pool_status(pool, None)),
        (CalendarStatus, "Calendar", CALENDAR.judged(a_calendar())),
        (ScheduledTaskStatus, "ScheduledTask", task_status(a_task(), a_view(skips=SKIPS), a_pool("h"))),
        (TaskRunStatus, "TaskRun", run_status(a_run(result=b'{"a":1.5}', fraction=0.5, note="half"), 1)),
        (
            TaskRunStatus,
            "TaskRun",
            run_status(a_run(RunState.FAILED, error_type="shop.OutOfStock", message="no", traceback="t"), 1),
        ),
        (TaskRunStatus, "TaskRun", run_status(a_run(RunState.PENDING, started_ms=0), 1)),
    ):
        body = {k: v for k, v in with_transition_times(status, NOW).items() if v is not None}
        if body.get("error"):
            body["error"] = {k: v for k, v in body["error"].items() if v is not None}
        model.model_validate(body)
        assert set(status) <= {name for section in KINDS[kind].sections for name in section}


def test_what_was_written_is_not_written_again() -> None:
    status = task_status(a_task(), a_view(), a_pool("h"))
    stored = as_stored("ScheduledTask", with_transition_times(status, NOW))
    assert changes("ScheduledTask", status, stored) == {}
    assert changes("ScheduledTask", status, NOTHING) == status


def test_only_the_section_that_differs_is_written() -> None:
    stored = as_stored("ScheduledTask", with_transition_times(task_status(a_task(), a_view(), None), NOW))
    patch = changes("ScheduledTask", task_status(a_task(), a_view(succeeded=2), None), stored)
    assert set(patch) == {"lastScheduleTime", "settledTime", "lastRun", "active", "counters", "skips"}


def test_a_task_without_a_view_leaves_the_counters_as_they_are() -> None:
    stored = as_stored("ScheduledTask", with_transition_times(task_status(a_task(), a_view(), None), NOW))
    patch = changes("ScheduledTask", task_status(a_task(("InvalidSpec", "no")), None, None), stored)
    assert set(patch) == {"observedGeneration", "trigger", "conditions", "nextScheduleTime"}


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    stored = as_stored("ScheduledTask", with_transition_times(task_status(a_task(), a_view(), None), NOW))
    status = task_status(a_task(), a_view(), a_pool("x"))
    assert conditions_differ(status, stored)
    timed = with_transition_times(status, "2026-02-02T00:00:00Z", stored)
    assert condition(timed, "Ready")["lastTransitionTime"] == NOW
    assert condition(timed, "Stalled")["lastTransitionTime"] == "2026-02-02T00:00:00Z"


def test_what_is_merged_equals_what_the_watch_brings_back() -> None:
    first = with_transition_times(task_status(a_task(), a_view(), None), NOW)
    stored = as_stored("ScheduledTask", first)
    patch = changes("ScheduledTask", task_status(a_task(), a_view(next_ms=None), None), stored)
    assert patch == {"nextScheduleTime": None}
    assert stored.merged(SCHEDULED_TASK.sections, patch) == as_stored("ScheduledTask", {**first, **patch})


def test_numbers_are_compared_as_the_api_server_writes_them() -> None:
    one = TASK_RUN.digests({"result": {"sold": 3.0, "list": [1.0, 1.5]}})
    assert one == TASK_RUN.digests({"result": {"sold": 3, "list": [1, 1.5]}})
    assert one != TASK_RUN.digests({"result": {"sold": 4}})


def test_a_failed_run_is_false_for_kubectl_wait_and_an_open_one_unknown() -> None:
    failed = run_status(a_run(RunState.FAILED, error_type="3rd party!", message="no"), 1)
    assert (condition(failed, "Succeeded")["status"], condition(failed, "Succeeded")["reason"]) == ("False", "Failed")
    assert failed["error"]["type"] == "3rd party!"
    assert condition(run_status(a_run(RunState.RUNNING), 1), "Succeeded")["status"] == "Unknown"
    assert condition(run_status(a_run(RunState.RUNNING), 1), "Running")["status"] == "True"
    assert run_status(a_run(), 1)["lateness"] == "3ms"


def test_what_made_no_run_is_shown_by_reason_and_remembered_of_the_stored_status() -> None:
    status = task_status(a_task(), a_view(skipped=5, skips=SKIPS), a_pool("h"))
    assert status["counters"]["skipped"] == 5
    assert status["skips"] == [
        {"reason": "Deadline", "count": 2, "lastTime": "1970-01-01T00:01:00Z"},
        {"reason": "Misfired", "count": 3, "lastTime": "1970-01-01T00:00:01.500Z"},
    ]
    stored = as_stored("ScheduledTask", with_transition_times(status, NOW))
    assert stored.skips == (("Deadline", 2), ("Misfired", 3))
    more = changes("ScheduledTask", task_status(a_task(), a_view(skips=(("Misfired", 4, 2_000),)), None), stored)
    assert stored.merged(SCHEDULED_TASK.sections, more).skips == (("Misfired", 4),)
    assert stored.merged(SCHEDULED_TASK.sections, {"nextScheduleTime": None}).skips == stored.skips


def test_a_task_that_follows_another_is_armed_and_says_whom() -> None:
    status = task_status(a_task(source=Completion("extract")), a_view(next_ms=None), a_pool("h"))
    assert condition(status, "Ready")["reason"] == "Armed"
    assert status["trigger"] == "after a run of extract succeeded"


def over(**fields: Any) -> bool:
    """Whether a task with this trigger says at 60 s that nothing fires any more, when the engine sleeps on none."""
    view = a_view(next_ms=None, active=fields.pop("active", 0))
    task = a_task(**fields)
    ended = has_ended(task, view, 60_000)
    assert condition(task_status(task, view, None, ended=ended), "Ready")["reason"] == ("Ended" if ended else "Armed")
    return ended


def test_a_task_whose_calendars_refuse_more_than_a_search_asks_for_has_not_ended() -> None:
    seconds = [CalendarDates(name, crons=[parse(f"{name} * * 1 * *")]) for name in ("*/2", "1/2")]
    behind = Filter(exclude=tuple(seconds))
    assert not over(trigger=FilteredTrigger(CronTrigger("* * * * * *"), behind))
    assert not over(source=FixedDelay(1_000, behind))


def test_a_task_whose_trigger_has_no_instant_any_more_says_that_it_ended() -> None:
    minutes = CronTrigger("* * * * *")
    assert over(trigger=OnceTrigger(60_000))
    assert over(trigger=FilteredTrigger(minutes, Filter(not_after_ms=119_999)))
    assert not over(trigger=FilteredTrigger(minutes, Filter(not_after_ms=120_000))), "the intake is held"
    assert not over(trigger=minutes)
    assert not has_ended(a_task(trigger=OnceTrigger(1)), a_view(next_ms=1), 60_000), "it is made up for"


def test_a_task_that_waits_for_the_end_of_a_run_has_not_ended_unless_its_window_has() -> None:
    window = Filter(not_after_ms=80_000)
    assert not over(source=FixedDelay(30_000), active=1)
    assert not over(source=FixedDelay(30_000, window), active=1)
    assert over(source=FixedDelay(30_000, window))
    assert not over(source=Completion("extract"))
    assert not over(source=Completion("extract", filter=window))
    assert over(source=Completion("extract", filter=Filter(not_after_ms=59_999)))


def test_an_ended_task_is_still_known_as_such_where_only_its_stored_status_tells() -> None:
    status = task_status(a_task(), a_view(next_ms=None), None, ended=True)
    assert condition(status, "Ready")["status"] == "True", "it did all that it was asked for"
    stored = as_stored("ScheduledTask", with_transition_times(status, NOW))
    assert stored.ready == "Ended"
    assert stored.merged(SCHEDULED_TASK.sections, {"nextScheduleTime": None}).ready == "Ended"
    armed = changes("ScheduledTask", task_status(a_task(), a_view(), None), stored)
    assert stored.merged(SCHEDULED_TASK.sections, armed).ready == "Armed"


def test_the_trigger_on_one_line_names_the_calendars() -> None:
    uses = (CalendarUse("holidays"), CalendarUse("payday", exclude=False), CalendarUse("fridays", exclude=False))
    status = task_status(a_task(calendars=uses), a_view(), None)
    assert status["trigger"] == "cron 0 4 * * * (UTC); except on holidays; only on payday or fridays"


def test_a_calendar_is_ready_or_says_which_field_is_wrong() -> None:
    status = CALENDAR.judged(a_calendar())
    assert [(c["type"], c["status"]) for c in status["conditions"]] == [
        ("Ready", "True"), ("Reconciling", "False"), ("Stalled", "False"),
    ]  # fmt: skip
    assert status["observedGeneration"] == 3
    fault = Fault("InvalidSpec", "spec.timeZone: no such zone")
    status = CALENDAR.judged(a_calendar(fault))
    for kind, word in (("Ready", "False"), ("Stalled", "True")):
        found = condition(status, kind)
        assert (found["status"], found["reason"], found["message"]) == (word, "InvalidSpec", fault.message)


@pytest.mark.parametrize(
    ("run", "running", "words"),
    [
        (a_run(RunState.RUNNING, cancelling=True), "True", ("Cancelling", "it was told to stop")),
        (
            a_run(RunState.PENDING, started_ms=0, attempts=0, ready_ms=90_000),
            "False", ("Delayed", "it may start from 1970-01-01T00:01:30Z"),
        ),
        (
            a_run(RunState.PENDING, started_ms=0, ready_ms=90_000, waits_for="2 runs with the same key are open"),
            "False", ("WaitsForOverlap", "2 runs with the same key are open"),
        ),
        (a_run(RunState.RUNNING, ready_ms=90_000, waits_for="no"), "True", ("Running", "")),
        (a_run(RunState.PENDING, started_ms=0, attempts=0), "False", ("Pending", "")),
        (
            a_run(RunState.PENDING, attempts=2, ready_ms=90_000, error_type="OutOfStock", message="no shoes"), "False",
            ("WaitsForRetry", "attempt 2 failed: OutOfStock: no shoes; the next may start from 1970-01-01T00:01:30Z"),
        ),
        (
            a_run(RunState.PENDING, ready_ms=90_000), "False",
            ("WaitsForRetry", "attempt 1 failed; the next may start from 1970-01-01T00:01:30Z"),
        ),
        (a_run(RunState.PENDING, error_type="OutOfStock"), "False", ("Pending", "attempt 1 failed: OutOfStock")),
    ],
)  # fmt: skip
def test_an_open_run_says_what_it_waits_for(run: RunView, running: str, words: tuple[str, str]) -> None:
    status = run_status(run, 1)
    reason, message = words
    for kind, state in (("Running", running), ("Succeeded", "Unknown")):
        found = condition(status, kind)
        assert (found["status"], found["reason"]) == (state, reason)
        assert message in found["message"]
    assert status["state"] == run.state.value


def test_a_run_that_was_told_to_stop_and_has_ended_is_not_cancelling_any_more() -> None:
    assert condition(run_status(a_run(RunState.CANCELLED, cancelling=True), 1), "Running")["reason"] == "Cancelled"


def test_an_open_run_says_why_its_last_attempt_failed_and_a_succeeded_one_does_not() -> None:
    why = {"error_type": "OutOfStock", "message": "no shoes"}
    for state in (RunState.PENDING, RunState.RUNNING):
        assert run_status(a_run(state, **why), 1)["error"] == {
            "type": "OutOfStock", "message": "no shoes", "traceback": None,
        }  # fmt: skip
    assert run_status(a_run(RunState.SUCCEEDED, **why), 1)["error"] is None
    assert run_status(a_run(RunState.RUNNING), 1)["error"] is None


def test_a_backfill_counts_its_runs() -> None:
    status = run_status(a_run(RunState.RUNNING, dispatches=(288, 100, 2)), 1)
    assert status["dispatches"] == {"total": 288, "succeeded": 100, "failed": 2}
    assert status["lateness"] is None
    assert run_status(a_run(), 1)["dispatches"] == {"total": 1, "succeeded": 1, "failed": 0}


def schema(kind: str, size_bytes: int = 0) -> HandlerSchema:
    described = {"type": kind, "description": "x" * size_bytes} if size_bytes else {"type": kind}
    return HandlerSchema(msgspec.json.encode(described), b"{}")


def test_a_pools_handlers_are_shown_with_the_schemas_that_came_last() -> None:
    schemas = {"a": [schema("object"), schema("array")], "b": [HandlerSchema(b"true", b"{}")], "gone": [schema("null")]}
    assert registered_handlers(["b", "a", "c"], schemas) == [
        {"name": "a", "parameters": {"type": "object"}, "differ": True},
        {"name": "b"},
        {"name": "c"},
    ]


def test_schemas_beyond_the_room_in_a_status_are_left_out() -> None:
    schemas = {name: [schema("object", MOST_SHOWN_BYTES // 3)] for name in "abcd"} | {"e": [schema("object")]}
    shown = registered_handlers(list("abcde"), schemas)
    assert [entry["name"] for entry in shown if "parameters" in entry] == ["a", "b", "e"]
    assert len(shown) == 5


def test_a_schema_that_is_nested_too_deeply_for_an_object_is_not_shown() -> None:
    deep = b'{"not":' * 97 + b"{}" + b"}" * 97
    assert registered_handlers(["a"], {"a": [HandlerSchema(deep, b"{}")]}) == [{"name": "a"}]
