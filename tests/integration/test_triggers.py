"""Triggers that need other objects, on a real API server: calendars that come, change and go, tasks that follow others,
and the runs of a span that was missed. The parts are those of `leading`: all real but election and gateway."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.integration.leading import PATIENCE_S, Objects, Replica, condition, manual, moment

OFTEN = {"fixedRate": "200ms"}
NOW = datetime.now(UTC)


@pytest.fixture
async def objects(objects: Objects) -> Objects:
    """With a pool."""
    await objects.create("WorkerPool", "shops", {})
    return objects


def days(first: int, last: int) -> str:
    """From so many days after today until so many after it: a range of a calendar. Midnight may pass meanwhile."""
    return "/".join((NOW + timedelta(days=number)).strftime("%Y-%m-%d") for number in (first, last))


def stalled(status: dict[str, Any]) -> str:
    """The message of the condition."""
    return next((c["message"] for c in status.get("conditions", ()) if c["type"] == "Stalled"), "")


async def fires(replica: Replica) -> None:
    """Wait for a run that does not exist yet."""
    made = replica.host.engine.stats.runs_created
    async with asyncio.timeout(PATIENCE_S):
        while replica.host.engine.stats.runs_created == made:
            await asyncio.sleep(0.05)


async def test_a_calendar_stops_its_tasks_at_once_and_lets_them_go_on_at_once(
    replica: Replica, objects: Objects
) -> None:
    trigger = {**OFTEN, "calendars": [{"name": "holidays"}]}
    await objects.create("ScheduledTask", "sync", manual(trigger=trigger))
    status = await objects.until("ScheduledTask", "sync", lambda s: condition(s, "Stalled")[0] == "True")
    assert condition(status, "Stalled") == ("True", "CalendarNotFound")
    assert stalled(status).startswith("spec.trigger.calendars[0].name: there is no Calendar holidays")

    await objects.create("Calendar", "holidays", {"dates": [days(7, 8)]})
    status = await objects.until("Calendar", "holidays", lambda s: bool(s.get("conditions")))
    assert (condition(status, "Ready")[0], status["observedGeneration"]) == ("True", 1)
    await objects.until("ScheduledTask", "sync", lambda s: condition(s, "Ready") == ("True", "Armed"))
    await fires(replica)

    await objects.patch("Calendar", "holidays", {"dates": [days(-1, 1)]})
    after = f"{days(2, 2)[:10]}T00:00:00"
    status = await objects.until("ScheduledTask", "sync", lambda s: s.get("nextScheduleTime", "").startswith(after))
    assert condition(status, "Ready") == ("True", "Armed"), "no fault of the task"
    made = replica.host.engine.stats.runs_created
    await asyncio.sleep(0.6)
    assert replica.host.engine.stats.runs_created == made

    await objects.patch("Calendar", "holidays", {"dates": [days(7, 8)]})
    await fires(replica)
    await objects.patch("Calendar", "holidays", {"timeZone": "Asia/Shanghi"})
    status = await objects.until("Calendar", "holidays", lambda s: condition(s, "Stalled")[0] == "True")
    assert condition(status, "Stalled") == ("True", "InvalidSpec")
    assert stalled(status).startswith("spec.timeZone: 'Asia/Shanghi' is not a time zone")
    await objects.delete("Calendar", "holidays")
    await objects.until("ScheduledTask", "sync", lambda s: condition(s, "Stalled") == ("True", "CalendarNotFound"))


async def test_the_end_of_a_run_fires_the_tasks_that_follow_it_and_a_circle_is_stalled(
    replica: Replica, objects: Objects
) -> None:
    follows = {"trigger": {"completion": {"task": "extract"}}}
    await objects.create("ScheduledTask", "load", manual(**follows))
    status = await objects.until("ScheduledTask", "load", lambda s: condition(s, "Stalled")[0] == "True")
    assert condition(status, "Stalled") == ("True", "TaskNotFound")
    assert stalled(status).startswith("spec.trigger.completion.task: there is no ScheduledTask extract")

    await objects.create("ScheduledTask", "extract", manual())
    await objects.until("ScheduledTask", "load", lambda s: condition(s, "Ready") == ("True", "Armed"))
    await objects.create("TaskRun", "by-hand", {"task": "extract"})
    await replica.work("sync")  # the run of extract ...
    await replica.work("sync")  # ... and the one that follows
    status = await objects.until("ScheduledTask", "load", lambda s: (s.get("counters") or {}).get("succeeded") == 1)
    assert status["trigger"] == "after a run of extract succeeded"

    await objects.patch("ScheduledTask", "extract", {"trigger": {"completion": {"task": "load"}}})
    for name, chain in (("extract", "extract -> load -> extract"), ("load", "load -> extract -> load")):
        status = await objects.until("ScheduledTask", name, lambda s: condition(s, "Stalled")[0] == "True")
        assert condition(status, "Stalled") == ("True", "CompletionCycle")
        assert chain in stalled(status)
    await objects.patch("ScheduledTask", "extract", {"trigger": None})
    for name in ("extract", "load"):
        await objects.until("ScheduledTask", name, lambda s: condition(s, "Stalled") == ("False", "Settled"))


async def test_a_backfill_is_one_taskrun_that_counts_the_runs_of_its_span(replica: Replica, objects: Objects) -> None:
    await objects.create("ScheduledTask", "sync", manual(trigger={"cron": "0 * * * *"}))
    span = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T03:00:00Z", "maxParallel": 2}
    await objects.create("TaskRun", "january", {"task": "sync", "backfill": span})
    status = await objects.until("TaskRun", "january", lambda s: "dispatches" in s)
    assert (status["state"], status["dispatches"]) == ("Running", {"total": 3, "succeeded": 0, "failed": 0})
    await replica.work("sync")
    await replica.work("sync", fail=True)
    status = await objects.until("TaskRun", "january", lambda s: condition(s, "Succeeded")[0] == "False")
    assert status["dispatches"] == {"total": 3, "succeeded": 2, "failed": 1}


async def test_a_run_that_waits_says_for_what(replica: Replica, objects: Objects) -> None:
    hourly = {"limit": 1, "backoff": {"fixed": {"delay": "1h"}}}
    await objects.create("ScheduledTask", "patient", manual(retry=hourly))
    await objects.create("TaskRun", "tried", {"task": "patient"})
    await replica.work("sync", fail=True)
    status = await objects.until("TaskRun", "tried", lambda s: condition(s, "Running")[1] == "WaitsForRetry")
    assert next(c["message"] for c in status["conditions"]).startswith("attempt 1 failed")

    await objects.create("ScheduledTask", "sync", manual(concurrency={"policy": "Queue", "maxConcurrent": 1}))
    await objects.create("TaskRun", "later", {"task": "sync", "delay": "1h", "idempotencyKey": "remind-4711"})
    await objects.until("TaskRun", "later", lambda s: condition(s, "Running") == ("False", "Delayed"))
    await objects.create("TaskRun", "first", {"task": "sync"})
    await objects.until("TaskRun", "first", lambda s: s.get("state") == "Pending")
    await objects.create("TaskRun", "second", {"task": "sync"})
    status = await objects.until("TaskRun", "second", lambda s: bool(s.get("conditions")))
    assert condition(status, "Running") == ("False", "WaitsForOverlap")
    assert next(c["message"] for c in status["conditions"]) == "1 run of this task is open"

    while not (await replica.pull("sync")).deliveries:
        pass
    await objects.patch("TaskRun", "first", {"cancel": True})
    status = await objects.until("TaskRun", "first", lambda s: condition(s, "Running")[1] == "Cancelling")
    assert (status["state"], condition(status, "Succeeded")) == ("Running", ("Unknown", "Cancelling"))

    await objects.delete("TaskRun", "later")
    await objects.create("TaskRun", "stop", {"task": "sync", "idempotencyKey": "remind-4711", "cancel": True})
    await objects.until("TaskRun", "stop", lambda s: condition(s, "Succeeded") == ("False", "Cancelled"))


async def test_a_task_that_fired_for_the_last_time_says_so_for_good(replica: Replica, objects: Objects) -> None:
    await objects.create("ScheduledTask", "only", manual(trigger={"once": {"after": "100ms"}}))
    await objects.until("ScheduledTask", "only", lambda s: condition(s, "Ready") == ("True", "Ended"))
    await replica.pull("other")
    await objects.create("ScheduledTask", "another", manual(trigger=OFTEN))  # what it commits shows the pool
    status = await objects.until("ScheduledTask", "only", lambda s: condition(s, "Stalled")[0] == "True")
    assert condition(status, "Stalled") == ("True", "HandlerNotRegistered")
    assert condition(status, "Ready") == ("True", "Ended"), "no view says so: the engine was not asked"

    await objects.patch("ScheduledTask", "only", {"trigger": {"once": {"after": "1h"}}})
    await objects.until("ScheduledTask", "only", lambda s: condition(s, "Ready") == ("True", "Armed"))


def of_overlap(skip: dict[str, Any]) -> bool:
    """Where the machine stands still for a second, others are overdue and coalesced."""
    return bool(skip["reason"] == "Overlap")


def later_is_skipped(status: dict[str, Any]) -> bool:
    """Whether an instant after the one that fired was skipped, since its run is open."""
    overlaps = filter(of_overlap, status.get("skips", ()))
    return any(moment(skip["lastTime"]) > moment(status["lastScheduleTime"]) for skip in overlaps)


async def test_what_made_no_run_is_counted_by_reason_and_told_of_by_an_event(
    replica: Replica, objects: Objects
) -> None:
    await objects.create("ScheduledTask", "sync", manual(trigger=OFTEN, concurrency={"policy": "Forbid"}))
    status = await objects.until("ScheduledTask", "sync", later_is_skipped)
    assert sum(skip["count"] for skip in status["skips"]) == status["counters"]["skipped"]
    async with asyncio.timeout(PATIENCE_S):
        while not (events := [e for e in await objects.events("InstantsSkipped") if e.message.startswith("Overlap: ")]):
            await asyncio.sleep(0.1)
    assert events[0].type == "Normal", "it is what the task asks for"
    assert "spec.concurrency.policy is Forbid" in events[0].message
