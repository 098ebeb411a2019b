"""What becomes of instants that were due when a task was edited, suspended, or led by nobody, on a real API server. The
parts are those of `leading`: all real but election and gateway."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient
from tests.integration.leading import PATIENCE_S, Objects, Replica, condition, manual, moment

FIRE_ALL = {"policy": "FireAll", "maxCatchUp": 10_000}


@pytest.fixture
async def objects(objects: Objects) -> Objects:
    """With a pool."""
    await objects.create("WorkerPool", "shops", {})
    return objects


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def instants(replica: Replica, made: dict[str, Any]) -> list[int]:
    """Those of the task's open runs, in seconds since its creation."""
    task = replica.host.engine.state.by_uid.get(made["metadata"]["uid"])
    created = moment(made["metadata"]["creationTimestamp"]).timestamp()
    return [] if task is None else [round(run.scheduled_ms / 1000 - created) for run in task.runs.values()]


async def until_runs(replica: Replica, made: dict[str, Any], least: int = 1) -> list[int]:
    async with asyncio.timeout(PATIENCE_S):
        while len(found := instants(replica, made)) < least:
            await asyncio.sleep(0.05)
    return found


def reasons(status: dict[str, Any]) -> list[str]:
    return [skip["reason"] for skip in status.get("skips", ())]


async def test_an_unfired_once_that_is_edited_to_an_instant_just_past_runs(replica: Replica, objects: Objects) -> None:
    await objects.create("ScheduledTask", "sync", manual(trigger={"once": {"after": "1h"}}))
    await objects.until("ScheduledTask", "sync", lambda s: condition(s, "Ready") == ("True", "Armed"))
    past = ago(5)
    await objects.patch("ScheduledTask", "sync", {"trigger": {"once": {"after": None, "at": past}}})
    status = await objects.until("ScheduledTask", "sync", lambda s: bool(s.get("lastScheduleTime")))
    assert moment(status["lastScheduleTime"]) == moment(past)
    await replica.work("sync")
    status = await objects.until("ScheduledTask", "sync", lambda s: (s.get("counters") or {}).get("succeeded") == 1)
    assert condition(status, "Ready") == ("True", "Ended")

    await objects.patch("ScheduledTask", "sync", {"trigger": {"once": {"at": ago(60)}}})
    status = await objects.until("ScheduledTask", "sync", lambda s: bool(s.get("skips")))
    assert (reasons(status), status["counters"]["succeeded"]) == (["Edited"], 1), "it has run at a later instant"


@pytest.mark.parametrize("seen", [True, False])
async def test_a_trigger_rewritten_with_the_same_meaning_drops_nothing_that_is_overdue(
    client: ApiClient, objects: Objects, replica: Replica, tmp_path: Path, seen: bool
) -> None:
    task = manual(trigger={"cron": "* * * * * MON-SUN"}, misfire=FIRE_ALL)
    made = await objects.create("ScheduledTask", "sync", task)
    await until_runs(replica, made)
    leader = replica
    if seen:
        await objects.patch("ScheduledTask", "sync", {"suspend": True})
        await objects.until("ScheduledTask", "sync", lambda s: condition(s, "Ready") == ("True", "Suspended"))
    else:
        await replica.stop()
    before = instants(replica, made)
    await asyncio.sleep(3)
    await objects.patch("ScheduledTask", "sync", {"trigger": {"cron": "*  * *  ? jan-dec 0-6"}, "suspend": False})
    if not seen:
        leader = Replica(client, objects.namespace, tmp_path / "ledger.sqlite")
        await leader.start()
    found = await until_runs(leader, made, len(before) + 3)
    assert found == [*range(1, len(found) + 1)], "each second since its creation"
    status = await objects.until("ScheduledTask", "sync", lambda s: bool(s.get("lastScheduleTime")))
    assert "Edited" not in reasons(status)
    if not seen:
        await leader.stop()


async def test_of_what_was_missed_forbid_runs_the_latest_and_a_queue_keeps_the_latest(
    replica: Replica, objects: Objects
) -> None:
    window = {"notAfter": (datetime.now(UTC) + timedelta(seconds=8)).strftime("%Y-%m-%dT%H:%M:%SZ")}
    trigger = {"cron": "* * * * * *", "window": window}
    tasks = {
        name: await objects.create(
            "ScheduledTask", name, manual(trigger=trigger, misfire=FIRE_ALL, suspend=True, concurrency=concurrency)
        )
        for name, concurrency in (
            ("forbid", {"policy": "Forbid"}),
            ("queue", {"policy": "Queue", "queueLimit": 1}),
        )
    }
    for name in tasks:
        await objects.until("ScheduledTask", name, lambda s: condition(s, "Ready") == ("True", "Suspended"))
    while datetime.now(UTC) < moment(window["notAfter"]) + timedelta(seconds=1):
        await asyncio.sleep(0.1)
    for name, most in (("forbid", 1), ("queue", 2)):
        await objects.patch("ScheduledTask", name, {"suspend": False})
        found = await until_runs(replica, tasks[name], most)
        last = round(
            (moment(window["notAfter"]) - moment(tasks[name]["metadata"]["creationTimestamp"])).total_seconds()
        )
        assert found == [*range(last - most + 1, last + 1)]
        status = await objects.until("ScheduledTask", name, lambda s: bool(s.get("skips")))
        assert sum(skip["count"] for skip in status["skips"]) == last - most
        assert reasons(status) == ["Overlap" if name == "forbid" else "QueueFull"]


async def test_what_many_tasks_catch_up_is_spread_over_their_jitter(replica: Replica, objects: Objects) -> None:
    trigger = {"once": {"at": ago(7_200)}, "jitter": "1h"}
    tasks = [await objects.create("ScheduledTask", f"sync-{n}", manual(trigger=trigger)) for n in range(10)]
    for made in tasks:
        await until_runs(replica, made)
    runs = [run for made in tasks for run in replica.host.engine.state.by_uid[made["metadata"]["uid"]].runs.values()]
    due = [run.dispatches[0].due_boot_ms for run in runs]
    assert len(due) == 10
    assert max(ms or 0 for ms in due) - min(ms or 0 for ms in due) > 10 * 60_000
    assert len((await replica.pull("sync")).deliveries) < 5
