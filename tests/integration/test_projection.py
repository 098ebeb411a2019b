"""What people see of tasks, pools and runs: statuses, TaskRun objects and Events on a real API server."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from kubernetes.aio.client import ApiClient
from tests.integration.leading import PATIENCE_S, Objects, Replica, condition, manual, moment


async def test_a_task_without_its_pool_is_stalled_and_is_armed_when_the_pool_comes(
    replica: Replica, objects: Objects
) -> None:
    await objects.create("ScheduledTask", "sync", manual(trigger={"cron": "0 4 * * *"}))
    status = await objects.until("ScheduledTask", "sync", lambda s: condition(s, "Stalled")[0] == "True")
    assert condition(status, "Stalled") == ("True", "PoolNotFound")
    assert condition(status, "Ready") == ("False", "PoolNotFound")
    assert "nextScheduleTime" not in status

    await objects.create("WorkerPool", "shops", {})
    status = await objects.until("ScheduledTask", "sync", lambda s: "nextScheduleTime" in s)
    assert condition(status, "Ready") == ("True", "Armed")
    assert condition(status, "Stalled") == ("False", "Settled")
    assert status["trigger"] == "cron 0 4 * * * (UTC)"
    assert status["nextScheduleTime"].endswith("T04:00:00Z")
    assert status["observedGeneration"] == 1
    async with asyncio.timeout(PATIENCE_S):
        while not (await objects.events("PoolNotFound") and await objects.events("Armed")):
            await asyncio.sleep(0.2)


async def test_what_the_schema_lets_through_and_nobody_can_run_is_stalled_with_the_field(
    replica: Replica, objects: Objects
) -> None:
    await objects.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "never", manual(trigger={"cron": "0 0 30 2 *"}))
    await objects.create("ScheduledTask", "zone", manual(trigger={"cron": "0 0 * * *", "timeZone": "Asia/Shanghi"}))
    await objects.create("ScheduledTask", "later", manual(orderingKey="/shop"))
    for name, reason, field in (
        ("never", "InvalidSpec", "spec.trigger.cron"),
        ("zone", "InvalidSpec", "spec.trigger.timeZone"),
        ("later", "NotSupported", "spec.orderingKey"),
    ):
        status = await objects.until("ScheduledTask", name, lambda s: bool(s.get("conditions")))
        assert condition(status, "Stalled") == ("True", reason)
        message = next(c["message"] for c in status["conditions"] if c["type"] == "Stalled")
        assert field in message
    await objects.patch("ScheduledTask", "never", {"trigger": {"cron": "0 0 28 2 *"}})
    await objects.until("ScheduledTask", "never", lambda s: condition(s, "Ready") == ("True", "Armed"))


async def test_a_requested_run_shows_its_way_to_the_end(replica: Replica, objects: Objects) -> None:
    await objects.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "sync", manual())
    await objects.create("TaskRun", "by-hand", {"task": "sync", "parameters": {"region": "south"}})
    status = await objects.until("TaskRun", "by-hand", lambda s: s.get("state") == "Pending")
    assert condition(status, "Succeeded")[0] == "Unknown"

    await replica.work("sync")
    status = await objects.until("TaskRun", "by-hand", lambda s: condition(s, "Succeeded")[0] == "True")
    assert status["state"] == "Succeeded"
    assert status["result"] == {"sold": 3}
    assert status["worker"] == "shops-0"
    assert status["attempts"] == 1
    assert moment(status["completionTime"]) >= moment(status["startTime"])
    task = await objects.until("ScheduledTask", "sync", lambda s: (s.get("counters") or {}).get("succeeded") == 1)
    assert task["lastRun"]["name"] == "by-hand"
    assert [run["metadata"]["name"] for run in await objects.list("TaskRun")] == ["by-hand"]


async def test_a_failed_run_says_why_and_is_told_of_by_an_event(replica: Replica, objects: Objects) -> None:
    await objects.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "sync", manual())
    await objects.create("TaskRun", "by-hand", {"task": "sync"})
    await replica.work("sync", fail=True)
    status = await objects.until("TaskRun", "by-hand", lambda s: condition(s, "Succeeded")[0] == "False")
    assert condition(status, "Succeeded") == ("False", "OutOfStock")
    assert status["error"] == {"type": "OutOfStock", "message": "no shoes"}
    async with asyncio.timeout(PATIENCE_S):
        while not (events := await objects.events("RunFailed")):
            await asyncio.sleep(0.2)
    assert "OutOfStock: no shoes" in events[0].message


async def test_two_requests_with_one_key_are_one_run_and_both_show_it(replica: Replica, objects: Objects) -> None:
    await objects.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "sync", manual())
    for name in ("one", "two"):
        await objects.create("TaskRun", name, {"task": "sync", "idempotencyKey": "order-4711"})
    await replica.work("sync")
    shown = [
        await objects.until("TaskRun", name, lambda s: condition(s, "Succeeded")[0] == "True")
        for name in ("one", "two")
    ]
    assert shown[0]["runId"] == shown[1]["runId"]
    await objects.until("ScheduledTask", "sync", lambda s: (s.get("counters") or {}).get("succeeded", 0) > 0)
    await replica.settled()
    assert (await objects.get("ScheduledTask", "sync"))["status"]["counters"]["succeeded"] == 1


async def test_a_key_that_stands_for_another_request_is_refused_with_the_difference(
    replica: Replica, objects: Objects
) -> None:
    await objects.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "sync", manual())
    key = {"task": "sync", "idempotencyKey": "order-4711"}
    await objects.create("TaskRun", "one", {**key, "parameters": {"region": "south", "limit": 1}})
    await replica.work("sync")
    await objects.until("TaskRun", "one", lambda s: condition(s, "Succeeded")[0] == "True")
    await objects.create("TaskRun", "two", {**key, "parameters": {"region": "north", "limit": 1.0}})
    status = await objects.until("TaskRun", "two", lambda s: bool(s.get("conditions")))
    assert condition(status, "Succeeded") == ("False", "IdempotencyKeyReused")
    message = next(c["message"] for c in status["conditions"] if c["type"] == "Stalled")
    assert "'order-4711'" in message and "parameters.region: has another value" in message and "limit" not in message
    await objects.create("TaskRun", "same", {**key, "parameters": {"limit": 1, "region": "south"}})
    await objects.until("TaskRun", "same", lambda s: condition(s, "Succeeded")[0] == "True")


async def test_a_taskrun_is_deleted_its_time_after_the_run_ended_and_no_other_is(
    replica: Replica, objects: Objects
) -> None:
    await objects.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "sync", manual())
    for name, ttl in (("at-once", {"ttlSecondsAfterFinished": 0}), ("stays", {}), ("later", {})):
        await objects.create("TaskRun", name, {"task": "sync", **ttl})
        await replica.work("sync")
        if name != "at-once":
            await objects.until("TaskRun", name, lambda s: s.get("state") == "Succeeded")
    await objects.until_listed("TaskRun", lambda runs: set(runs) == {"stays", "later"})
    await objects.patch("TaskRun", "later", {"ttlSecondsAfterFinished": 1})
    await objects.until_listed("TaskRun", lambda runs: set(runs) == {"stays"})
    open_one = await objects.create("TaskRun", "open", {"task": "sync", "ttlSecondsAfterFinished": 0})
    await objects.until("TaskRun", "open", lambda s: s.get("state") == "Pending")
    await replica.settled()
    assert (await objects.get("TaskRun", "open"))["metadata"]["uid"] == open_one["metadata"]["uid"]


async def test_a_request_waits_for_a_task_that_is_not_there_yet(replica: Replica, objects: Objects) -> None:
    await objects.create("WorkerPool", "shops", {})
    await objects.create("TaskRun", "early", {"task": "sync"})
    status = await objects.until("TaskRun", "early", lambda s: bool(s.get("conditions")))
    assert condition(status, "Succeeded") == ("False", "NoSuchTask")
    await objects.create("ScheduledTask", "sync", manual())
    await replica.work("sync")
    await objects.until("TaskRun", "early", lambda s: condition(s, "Succeeded")[0] == "True")


async def test_a_request_can_be_cancelled(replica: Replica, objects: Objects) -> None:
    await objects.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "sync", manual())
    await objects.create("TaskRun", "by-hand", {"task": "sync"})
    await objects.until("TaskRun", "by-hand", lambda s: s.get("state") == "Pending")
    await objects.patch("TaskRun", "by-hand", {"cancel": True})
    status = await objects.until("TaskRun", "by-hand", lambda s: s.get("state") == "Cancelled")
    assert condition(status, "Succeeded") == ("False", "Cancelled")
    assert "by-hand" in status["error"]["message"]


async def test_a_handler_that_no_live_worker_registered_stalls_a_task_that_stays_ready(
    replica: Replica, objects: Objects
) -> None:
    await objects.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "sync", manual())
    await objects.until("ScheduledTask", "sync", lambda s: condition(s, "Ready") == ("True", "Manual"))
    await replica.pull("other", "another")
    # The host shows pools with its next commit, so something must happen.
    await objects.create("TaskRun", "by-hand", {"task": "sync"})
    status = await objects.until("ScheduledTask", "sync", lambda s: condition(s, "Stalled")[0] == "True")
    assert condition(status, "Stalled") == ("True", "HandlerNotRegistered")
    assert condition(status, "Ready") == ("True", "Manual")
    message = next(c["message"] for c in status["conditions"] if c["type"] == "Stalled")
    assert "shops" in message and "another, other" in message
    pool = await objects.until(
        "WorkerPool", "shops", lambda s: s.get("handlers") == [{"name": "another"}, {"name": "other"}]
    )
    assert (pool["replicas"], pool["readyReplicas"], pool["slots"]["total"]) == (1, 1, 4)

    await replica.work("sync")
    await objects.until("ScheduledTask", "sync", lambda s: condition(s, "Stalled") == ("False", "Settled"))


async def test_scheduled_runs_become_views_as_many_as_the_history_keeps(replica: Replica, objects: Objects) -> None:
    await objects.create("WorkerPool", "shops", {})
    task = await objects.create(
        "ScheduledTask", "sync", manual(trigger={"fixedRate": "300ms"}, history={"succeeded": 2})
    )
    for _ in range(5):
        await replica.work("sync")
    await objects.patch("ScheduledTask", "sync", {"suspend": True})
    await objects.until("ScheduledTask", "sync", lambda s: condition(s, "Ready") == ("True", "Suspended"))
    while replica.host.engine.state.runs:
        await replica.work("sync")
    await objects.until("ScheduledTask", "sync", lambda s: s["active"] == 0)
    await replica.settled()
    views = await objects.list("TaskRun")
    assert len(views) == 2
    for view in views:
        metadata = view["metadata"]
        assert metadata["labels"] == {"tickwheel.io/view": "true", "tickwheel.io/task": "sync"}
        assert metadata["ownerReferences"][0]["uid"] == task["metadata"]["uid"]
        assert metadata["ownerReferences"][0]["controller"] is True
        assert view["status"]["state"] == "Succeeded"
    assert not replica.requests.entries(), "views are no requests"


async def test_a_task_that_ran_always_shows_a_run(replica: Replica, objects: Objects) -> None:
    await objects.create("WorkerPool", "shops", {})
    often = {"trigger": {"fixedRate": "10ms"}, "concurrency": {"policy": "Forbid"}, "history": {"succeeded": 1}}
    await objects.create("ScheduledTask", "sync", manual(**often))
    watching = asyncio.create_task(objects.watch("TaskRun", until=lambda changes: changes.count("DELETED") == 5))
    while not watching.done():
        await replica.work("sync")
    shown = list(itertools.accumulate({"ADDED": 1, "DELETED": -1}.get(change, 0) for change in watching.result()))
    assert min(shown) == 1, watching.result()


async def test_where_a_quota_is_full_the_old_runs_make_room_for_the_new(
    replica: Replica, objects: Objects, caplog: pytest.LogCaptureFixture
) -> None:
    await objects.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "sync", manual(trigger={"fixedRate": "300ms"}, history={"succeeded": 1}))
    await replica.work("sync")
    await objects.until_listed("TaskRun", bool)
    await objects.quota("taskruns.tickwheel.io", hard=1, used=1)
    async with asyncio.timeout(PATIENCE_S):
        while "exceeded quota: bound" not in caplog.text:  # admission learns of the quota by a watch
            await replica.work("sync")
        before = set(await objects.versions("TaskRun"))
        while before & set(await objects.versions("TaskRun")):
            await replica.work("sync")
    await objects.quota("taskruns.tickwheel.io", hard=1, used=0)
    await objects.until_listed("TaskRun", lambda runs: not before.issuperset(runs))
    assert "grant the operator's account" not in caplog.text, "it lacks no rights"


async def test_an_applied_object_does_not_wait_for_the_tasks_of_another_namespace(
    client: ApiClient, objects: Objects, tmp_path: Path
) -> None:
    crowd = Objects(client, f"{objects.namespace}-crowd")
    await crowd.open()
    for place in (crowd, objects):
        await place.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "edited", manual(trigger={"cron": "0 4 1 1 *"}))
    replica = Replica(client, objects.namespace, tmp_path / "l.sqlite", others=(crowd.namespace,), writes_per_s=2)
    await replica.start()
    try:
        await objects.until("ScheduledTask", "edited", lambda s: s.get("observedGeneration") == 1)
        gate = asyncio.Semaphore(10)

        async def create(number: int) -> None:
            async with gate:
                await crowd.create("ScheduledTask", f"task-{number}", manual(trigger={"cron": "0 4 1 1 *"}))

        await asyncio.gather(*(create(number) for number in range(400)))
        async with asyncio.timeout(PATIENCE_S):
            while replica.projector.pending < 200:
                await asyncio.sleep(0.1)
        before = replica.projector.writes["ScheduledTask", "ok"]
        assert replica.projector.oldest_s > 0
        await objects.patch("ScheduledTask", "edited", {"trigger": {"cron": "0 5 1 1 *"}})
        await objects.create("ScheduledTask", "new", manual())
        await objects.until("ScheduledTask", "edited", lambda s: s.get("observedGeneration") == 2)
        await objects.until("ScheduledTask", "new", lambda s: s.get("observedGeneration") == 1)
        assert replica.projector.pending > 50, "the crowd still waits"
        assert replica.projector.writes["ScheduledTask", "ok"] - before < 100
    finally:
        await replica.stop()


async def test_a_new_leader_over_right_statuses_writes_nothing(
    client: ApiClient, replica: Replica, objects: Objects, tmp_path: Path
) -> None:
    await objects.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "broken", manual(pool="nowhere"))
    for number in range(10):
        await objects.create("ScheduledTask", f"task-{number}", manual(trigger={"cron": "0 4 1 1 *"}))
    await objects.create("TaskRun", "by-hand", {"task": "task-0"})
    await replica.work("sync")
    await objects.until("TaskRun", "by-hand", lambda s: s.get("state") == "Succeeded")
    await objects.create("TaskRun", "fails", {"task": "task-1"})
    await replica.work("sync", fail=True)
    await objects.until("TaskRun", "fails", lambda s: s.get("state") == "Failed")
    for number in range(10):
        await objects.until("ScheduledTask", f"task-{number}", lambda s: "counters" in s)
    await objects.until("WorkerPool", "shops", lambda s: s.get("handlers") == [{"name": "sync"}])
    await replica.settled()
    before = await objects.versions("ScheduledTask")
    await replica.stop()

    second = Replica(client, objects.namespace, tmp_path / "ledger.sqlite")
    await second.start()
    await second.pull("sync")
    await objects.create("TaskRun", "again", {"task": "task-2"})
    await second.work("sync")
    await objects.until("TaskRun", "again", lambda s: s.get("state") == "Succeeded")
    await objects.until("ScheduledTask", "task-2", lambda s: s["counters"]["succeeded"] == 1)
    await second.settled()
    after = await objects.versions("ScheduledTask")
    await second.stop()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"task-2"}
