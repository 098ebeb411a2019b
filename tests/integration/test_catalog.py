"""The catalog against a real API server: its first list, its deltas, and what a broken watch leaves behind."""

from __future__ import annotations

import asyncio
import functools
import itertools
import secrets
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient, AppsV1Api, CoreV1Api, CustomObjectsApi, V1Namespace, V1ObjectMeta

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.controllers.census import Census
from tickwheel_operator.controllers.pods import PodWatch
from tickwheel_operator.controllers.requests import Requests
from tickwheel_operator.controllers.vanished import Vanished, watched_kinds
from tickwheel_operator.controllers.watch import Watch, WatchConfig
from tickwheel_operator.engine.messages import Command, PoolApplied, TaskApplied, TaskRemoved, WorkerGone
from tickwheel_operator.kinds import KINDS
from tickwheel_operator.kinds.workerpool import WORKER_POOL
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.pools.deployments import Deployments

GROUP, VERSION = "tickwheel.io", "v1alpha1"
PATIENCE_S = 30.0
_numbers = itertools.count()


@pytest.fixture
async def place(client: ApiClient) -> str:
    name = f"catalog-{next(_numbers)}-{secrets.token_hex(3)}"
    await CoreV1Api(client).create_namespace(V1Namespace(metadata=V1ObjectMeta(name=name)))
    return name


async def create(client: ApiClient, place: str, kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> Any:
    body = {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "spec": spec,
        "metadata": {"name": name, "namespace": place, **metadata},
    }  # fmt: skip
    return await CustomObjectsApi(client).create_namespaced_custom_object(
        GROUP, VERSION, place, kind.lower() + "s", body
    )


async def delete(client: ApiClient, place: str, plural: str, name: str) -> None:
    await CustomObjectsApi(client).delete_namespaced_custom_object(GROUP, VERSION, place, plural, name)


class Watched:
    """A catalog that is kept in line with one namespace."""

    def __init__(self, client: ApiClient, place: str, **config: Any) -> None:
        clock = SystemClock()
        self.catalog = Catalog()
        self.requests = Requests(clock.now_ms, self.catalog.objects)
        self.gone: list[WorkerGone] = []
        self.pods = PodWatch(self.gone.append)
        self.deployments = Deployments()
        self.watch = Watch(
            KubeClient(client), self.catalog, self.requests, clock, pods=self.pods, deployments=self.deployments,
            config=WatchConfig(namespaces=(place,), page_size=7, **config),
        )  # fmt: skip
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watched:
        self._task = asyncio.create_task(self.watch.run())
        async with asyncio.timeout(PATIENCE_S):
            await self.catalog.wait_synced()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def until(holds: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.05)


async def test_it_is_synced_when_all_that_exists_is_in_it(client: ApiClient, place: str) -> None:
    await create(client, place, "WorkerPool", "shops", {})
    for number in range(20):
        await create(client, place, "ScheduledTask", f"t{number}", {"pool": "shops", "handler": "h"})
    async with Watched(client, place) as watched:
        commands = list(watched.catalog.snapshot())
        assert sum(isinstance(command, TaskApplied) for command in commands) == 20
        assert isinstance(commands[0], PoolApplied), "pools come first"
        assert watched.watch.health().problem == ""


async def test_it_is_synced_when_nothing_exists(client: ApiClient, place: str) -> None:
    async with Watched(client, place) as watched:
        assert list(watched.catalog.snapshot()) == []


async def test_changes_reach_the_leading_engine(client: ApiClient, place: str) -> None:
    await create(client, place, "WorkerPool", "shops", {})
    async with Watched(client, place) as watched:
        posted: list[Command] = []
        watched.catalog.attach(posted.extend)
        made = await create(client, place, "ScheduledTask", "t", {"pool": "shops", "handler": "h"})
        await until(lambda: len(posted) == 1)
        assert isinstance(posted[0], TaskApplied) and posted[0].spec.handler == "h"
        await CustomObjectsApi(client).patch_namespaced_custom_object(
            GROUP, VERSION, place, "scheduledtasks", "t", {"spec": {"handler": "other"}},
            _content_type="application/merge-patch+json",
        )  # fmt: skip
        await until(lambda: len(posted) == 2)
        assert isinstance(posted[1], TaskApplied) and posted[1].spec.handler == "other"
        await delete(client, place, "workerpools", "shops")
        await until(lambda: len(posted) == 4)
        assert posted[3] == TaskRemoved(uid=made["metadata"]["uid"], forget=False)
        await delete(client, place, "scheduledtasks", "t")
        await until(lambda: len(posted) == 5)
        assert posted[4] == TaskRemoved(uid=made["metadata"]["uid"], forget=True)


async def test_an_object_that_vanished_while_the_watch_was_broken_is_forgotten(
    client: ApiClient, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(client, place, "WorkerPool", "shops", {})
    await create(client, place, "ScheduledTask", "stays", {"pool": "shops", "handler": "h"})
    await create(client, place, "ScheduledTask", "goes", {"pool": "shops", "handler": "h"})
    async with Watched(client, place, probe_s=0.5) as watched:
        # The watch is deaf to the deletion, as one that lists anew after its place in the stream has expired.
        monkeypatch.setattr(watched.watch, "_gone", lambda *_: None)
        await delete(client, place, "scheduledtasks", "goes")
        await until(lambda: len(watched.catalog.tasks()) == 1)
        assert watched.catalog.task_named(place, "stays") is not None


async def test_the_operators_own_views_are_not_watched(client: ApiClient, place: str) -> None:
    async with Watched(client, place) as watched:
        await create(client, place, "TaskRun", "view", {"task": "t"}, labels={"tickwheel.io/view": "true"})
        await create(client, place, "TaskRun", "request", {"task": "t"})
        await until(lambda: watched.requests.entries())
        assert [entry.seen.name for entry in watched.requests.entries()] == ["request"]


async def test_a_worker_pod_that_is_deleted_is_a_lost_worker(client: ApiClient, place: str) -> None:
    core = CoreV1Api(client)
    pod: Any = {
        "metadata": {"name": "shops-0", "labels": {"tickwheel.io/pool": "shops"}},
        "spec": {"containers": [{"name": "worker", "image": "none"}], "automountServiceAccountToken": False},
    }
    async with Watched(client, place) as watched:
        await core.create_namespaced_pod(place, pod)
        await until(lambda: watched.pods.uids())  # it was seen
        assert watched.gone == []
        await core.delete_namespaced_pod("shops-0", place, grace_period_seconds=0)
        await until(lambda: watched.gone)
        assert watched.gone[0].key.pool == "shops"
        assert watched.gone[0].key.name == "shops-0"


async def test_pods_and_deployments_that_vanish_while_the_watch_is_broken_are_found_gone(
    client: ApiClient, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, apps = CoreV1Api(client), AppsV1Api(client)
    labels = {"tickwheel.io/pool": "shops"}
    template: Any = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "worker", "image": "none"}], "automountServiceAccountToken": False},
    }

    async def create_pod(name: str) -> None:
        pod: Any = {**template, "metadata": {"name": name, "labels": labels}}
        await core.create_namespaced_pod(place, pod)

    deployment: Any = {
        "metadata": {"name": "shops-workers", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    ended, back = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        ended.set()
        await back.wait()

    async with Watched(client, place, restart_s=0.1) as watched:
        await create_pod("shops-0")
        await create_pod("shops-1")
        await apps.create_namespaced_deployment(place, deployment)
        await create(client, place, "AlertChannel", "a", {"urlsFrom": {"secretKeyRef": {"name": "s", "key": "k"}}})
        channels = functools.partial(watched.catalog.objects.uids, KINDS["AlertChannel"])
        known = (watched.pods.uids, watched.deployments.uids, channels)
        await until(lambda: [len(uids()) for uids in known] == [2, 1, 1])
        monkeypatch.setattr(watched.watch, "_served", hold)  # it is what a watch waits for before it begins
        watched.watch._stop.set()
        await until(ended.is_set)
        await core.delete_namespaced_pod("shops-0", place, grace_period_seconds=0)
        await apps.delete_namespaced_deployment("shops-workers", place)
        await delete(client, place, "alertchannels", "a")
        await create_pod("shops-2")
        back.set()
        await until(lambda: len(watched.pods.uids()) == 3)  # the watch is back, and tells of what there is
        assert watched.gone == [] and [len(uids()) for uids in known] == [3, 1, 1]
        kinds = watched_kinds(watched.pods, watched.deployments, watched.catalog)
        looking = asyncio.create_task(Vanished(Census(KubeClient(client), (place,)), kinds, every_s=0.1).run())
        await until(lambda: [len(uids()) for uids in known] == [2, 0, 0])
        looking.cancel()
        assert [gone.key.name for gone in watched.gone] == ["shops-0"]


async def test_a_watch_that_ends_is_started_again(client: ApiClient, place: str) -> None:
    async with Watched(client, place, restart_s=0.2) as watched:
        watched.watch._stop.set()
        await create(client, place, "WorkerPool", "shops", {})
        await until(lambda: watched.catalog.objects.named(WORKER_POOL, place, "shops") is not None)


async def test_no_finalizer_or_annotation_is_left_on_objects(client: ApiClient, place: str) -> None:
    await create(client, place, "WorkerPool", "shops", {})
    await create(client, place, "ScheduledTask", "t", {"pool": "shops", "handler": "h"})
    async with Watched(client, place):
        await asyncio.sleep(0.5)
        found: Any = await CustomObjectsApi(client).get_namespaced_custom_object(
            GROUP, VERSION, place, "scheduledtasks", "t"
        )
        assert "finalizers" not in found["metadata"]
        assert "annotations" not in found["metadata"]


async def test_the_census_counts_by_one_request(client: ApiClient, place: str) -> None:
    for number in range(3):
        await create(client, place, "WorkerPool", f"p{number}", {})
    census = Census(KubeClient(client), (place,))
    assert await census.count("workerpools") == 3
    assert len(await census.uids("workerpools")) == 3
