"""What people see of tasks, pools and runs: statuses, TaskRun objects and Events on a real API server.

The catalog, the requests, the host with its engine and the projector are real; the ledger is SQLite and the worker is
the test itself, through the host's commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import (
    ApiClient,
    ApiException,
    CoreV1Api,
    CustomObjectsApi,
    V1Namespace,
    V1ObjectMeta,
    V1ResourceQuota,
    V1ResourceQuotaSpec,
)
from kubernetes.aio.config import new_client_from_config
from kubernetes.aio.watch import Watch as Watcher

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.controllers.requests import Requests
from tickwheel_operator.controllers.watch import Watch, WatchConfig
from tickwheel_operator.engine.messages import FailedAttempt, Pull, Pulled, Report, WorkerKey, WorkerSeen
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore
from tickwheel_operator.projection.config import ProjectionConfig
from tickwheel_operator.projection.events import EventRecorder
from tickwheel_operator.projection.projector import Projector
from tickwheel_operator.projection.stored import read_status
from tickwheel_operator.runtime.partition import PartitionHost

GROUP, VERSION = "tickwheel.io", "v1alpha1"
PATIENCE_S = 90.0


class Term:
    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


class Replica:
    """A leading operator without election and gateway."""

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        ledger: Path,
        *,
        others: tuple[str, ...] = (),
        writes_per_s: float = 100,
    ) -> None:
        """`others` are namespaces that it serves too."""
        self.clock = SystemClock()
        self.namespace = namespace
        self.catalog = Catalog()
        self.requests = Requests(self.clock.now_ms, retry_s=0.1)
        self.watch = Watch(
            client, self.catalog, self.requests, self.clock,
            config=WatchConfig(namespaces=(namespace, *others), watch_pods=False), read_status=read_status,
        )  # fmt: skip
        self.events = EventRecorder(client, self.clock, instance="replica-0")
        self.projector = Projector(
            client, self.catalog, self.requests, self.clock, events=self.events, namespaces=(namespace, *others),
            config=ProjectionConfig(
                writes_per_s=writes_per_s, burst=10, expiry_interval_s=0.3, pool_interval_s=0.2, task_interval_s=0.1,
            ),
        )  # fmt: skip
        self.catalog.on_task = self.projector.task_changed
        self.catalog.on_pool.append(self.projector.pool_changed)
        self.catalog.on_calendar = self.projector.calendar_changed
        self.requests.on_run = self.projector.run_changed
        self._store = SqliteSegmentStore(ledger)
        self.host = PartitionHost(self._ledger(), Term(), self.clock, sink=self.projector)
        self.new_request = itertools.count(1).__next__
        self._tasks: list[asyncio.Task[None]] = []

    def _ledger(self) -> Ledger:
        return Ledger(self._store, partition=0, leader="r", clock=self.clock, nonces=lambda: secrets.token_hex(8))

    async def start(self) -> None:
        for part in (self.watch, self.requests, self.projector, self.events):
            self._tasks.append(asyncio.create_task(part.run()))
        async with asyncio.timeout(PATIENCE_S):
            await self.catalog.wait_synced()
        await self.lead()

    async def lead(self) -> None:
        await self.host.take_over(self.catalog.snapshot)
        self.catalog.attach(self.host.post_all)
        self.requests.lead(self.host.call, self.new_request)
        self.projector.lead()
        self._tasks.append(asyncio.create_task(self.host.run()))

    async def stop(self) -> None:
        if not self._tasks:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._store.close()

    async def settled(self) -> None:
        """Wait until nothing waits to be written any more."""
        async with asyncio.timeout(PATIENCE_S):
            quiet = 0
            while quiet < 10:
                await asyncio.sleep(0.1)
                projector = self.projector
                busy = projector.pending or projector._incoming or projector._queue._working
                quiet = 0 if busy or self.host.engine.has_news else quiet + 1

    # --- the worker ---

    def seen(self, *handlers: str) -> WorkerSeen:
        key = WorkerKey(self.namespace, "shops", "shops-0")
        return WorkerSeen(key=key, instance="i-1", handlers=handlers, slots=4)

    async def pull(self, *handlers: str) -> Pulled:
        answer = await self.host.call(
            Pull(
                request=self.new_request(), worker=self.seen(*handlers), free=4,
                until_ms=self.clock.now_ms() + 500,
            )
        )  # fmt: skip
        assert isinstance(answer, Pulled)
        return answer

    async def report(self, *handlers: str, **what: Any) -> None:
        await self.host.call(Report(request=self.new_request(), worker=self.seen(*handlers), **what))

    async def work(self, handler: str, fail: bool = False) -> None:
        """Take and end one attempt."""
        async with asyncio.timeout(PATIENCE_S):
            while not (deliveries := (await self.pull(handler)).deliveries):
                pass
        tokens = [delivery.token for delivery in deliveries]
        if fail:
            failed = [FailedAttempt(token=token, error_type="OutOfStock", message="no shoes") for token in tokens]
            await self.report(handler, failed=failed)
        else:
            await self.report(handler, results=[(token, b'{"sold":3.0}') for token in tokens])


class Objects:
    """The user's side."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._api = CustomObjectsApi(client)
        self._core = CoreV1Api(client)
        self.namespace = namespace

    async def create(self, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        body = {
            "apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "spec": spec,
            "metadata": {"name": name, "namespace": self.namespace},
        }  # fmt: skip
        plural = kind.lower() + "s"
        made: Any = await self._api.create_namespaced_custom_object(GROUP, VERSION, self.namespace, plural, body)
        return made

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        found: Any = await self._api.get_namespaced_custom_object(
            GROUP, VERSION, self.namespace, kind.lower() + "s", name
        )
        return found

    async def list(self, kind: str) -> list[dict[str, Any]]:
        found: Any = await self._api.list_namespaced_custom_object(GROUP, VERSION, self.namespace, kind.lower() + "s")
        return found["items"]

    async def versions(self, kind: str) -> dict[str, str]:
        return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in await self.list(kind)}

    async def patch(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        await self._api.patch_namespaced_custom_object(
            GROUP, VERSION, self.namespace, kind.lower() + "s", name, {"spec": spec},
            _content_type="application/merge-patch+json",
        )  # fmt: skip

    async def delete(self, kind: str, name: str) -> None:
        await self._api.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, kind.lower() + "s", name)

    async def events(self, reason: str) -> list[Any]:
        found = await self._core.list_namespaced_event(self.namespace)
        return [event for event in found.items if event.reason == reason]

    async def watch(self, kind: str, until: Callable[[list[str]], bool]) -> list[str]:
        """What happened to objects of the kind, from the first on: ADDED, MODIFIED, DELETED."""
        changes: list[str] = []
        async with asyncio.timeout(PATIENCE_S), Watcher() as watcher:
            listing = self._api.list_namespaced_custom_object
            async for change in watcher.stream(listing, GROUP, VERSION, self.namespace, kind.lower() + "s"):
                changes.append(change["type"])
                if until(changes):
                    break
        return changes

    async def until_listed(self, kind: str, holds: Callable[[dict[str, str]], bool]) -> None:
        """Wait until the names and versions of the objects of a kind are so."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(await self.versions(kind)):
                await asyncio.sleep(0.1)

    async def quota(self, resource: str, hard: int, used: int) -> None:
        """Bound the objects of a kind. `used` is said here: the controller that counts them does not run."""
        kind = f"count/{resource}"
        body = V1ResourceQuota(metadata=V1ObjectMeta(name="bound"), spec=V1ResourceQuotaSpec(hard={kind: str(hard)}))
        with contextlib.suppress(ApiException):  # it is there
            await self._core.create_namespaced_resource_quota(self.namespace, body)
        status = {"status": {"hard": {kind: str(hard)}, "used": {kind: str(used)}}}
        await self._core.patch_namespaced_resource_quota_status("bound", self.namespace, status)

    async def until(self, kind: str, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The object's status, once it is so."""
        status: dict[str, Any] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    status = (await self.get(kind, name)).get("status") or {}
                    if holds(status):
                        return status
                    await asyncio.sleep(0.1)
        raise AssertionError(f"{kind} {name} has the status {json.dumps(status, indent=1)}")


def moment(text: str) -> datetime:
    """Of a status: with milliseconds where there are any, so that the texts have another order."""
    return datetime.fromisoformat(text)


def condition(status: dict[str, Any], kind: str) -> tuple[str, str]:
    return next(((c["status"], c["reason"]) for c in status.get("conditions", ()) if c["type"] == kind), ("", ""))


def manual(**spec: Any) -> dict[str, Any]:
    return {"pool": "shops", "handler": "sync", "retry": {"limit": 0}, **spec}


_numbers = itertools.count()


@pytest.fixture
async def client(cluster: Any) -> AsyncIterator[ApiClient]:
    client = await new_client_from_config(config_file=str(cluster.admin_kubeconfig))
    yield client
    await client.close()


@pytest.fixture
async def objects(client: ApiClient) -> Objects:
    namespace = f"projection-{next(_numbers)}-{secrets.token_hex(3)}"
    await CoreV1Api(client).create_namespace(V1Namespace(metadata=V1ObjectMeta(name=namespace)))
    return Objects(client, namespace)


@pytest.fixture
async def replica(client: ApiClient, objects: Objects, tmp_path: Path) -> AsyncIterator[Replica]:
    replica = Replica(client, objects.namespace, tmp_path / "ledger.sqlite")
    await replica.start()
    yield replica
    await replica.stop()


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
    pool = await objects.until("WorkerPool", "shops", lambda s: s.get("handlers") == ["another", "other"])
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
    await CoreV1Api(client).create_namespace(V1Namespace(metadata=V1ObjectMeta(name=crowd.namespace)))
    for place in (crowd, objects):
        await place.create("WorkerPool", "shops", {})
    await objects.create("ScheduledTask", "edited", manual(trigger={"cron": "0 4 1 1 *"}))
    replica = Replica(client, objects.namespace, tmp_path / "l.sqlite", others=(crowd.namespace,), writes_per_s=4)
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
    await objects.until("WorkerPool", "shops", lambda s: s.get("handlers") == ["sync"])
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
