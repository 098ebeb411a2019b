"""Each kind of write, twice, on a real API server and with the operator's own role.

A first write only shows that the kind is known. What changes an object is judged by other rules (fields that must not
change, versions that must match, verbs of their own), and only a real API server has them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from kubernetes.aio.client import ApiClient, CoordinationV1Api
from kubernetes.aio.config import new_client_from_config
from tests.contract.pool_cluster import deployments_are_applied_and_deleted_by_uid
from tests.contract.segment_store import a_segment
from tests.integration.installation import (
    OPERATOR_ACCOUNT,
    apply,
    create_namespace,
    get,
    install_operator,
    service_account,
)

from tickwheel_cluster import Access
from tickwheel_operator.api import WorkerPool
from tickwheel_operator.clock import SystemClock
from tickwheel_operator.election.kubernetes import KubernetesLeaseStore
from tickwheel_operator.election.lease import Lease, LeaseConflict
from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.read.views import HandlerState, RunView, TaskView
from tickwheel_operator.kinds.stored import NOTHING
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.resources import OURS
from tickwheel_operator.ledger.kubernetes import KubernetesSegmentStore
from tickwheel_operator.ledger.protocol import SegmentExists
from tickwheel_operator.pools.cluster import PoolCluster
from tickwheel_operator.pools.template import Surroundings, deployment
from tickwheel_operator.projection.bucket import Bucket
from tickwheel_operator.projection.events import EventConfig, EventRecorder
from tickwheel_operator.projection.history import History
from tickwheel_operator.projection.writer import Writer
from tickwheel_operator.tls.authority import make_authority
from tickwheel_operator.tls.rotation import Authorities
from tickwheel_operator.tls.store import AuthorityStore

SYSTEM = "writes-system"
PATIENCE_S = 90.0
_API = "/apis/tickwheel.io/v1alpha1/namespaces"
_CONTAINER = {"name": "worker", "image": "example.com/shops:1"}
SPECS: dict[str, dict[str, Any]] = {
    "ScheduledTask": {"pool": "shops", "handler": "sync"},
    "WorkerPool": {"template": {"spec": {"containers": [_CONTAINER]}}},
    "TaskRun": {"task": "sync"},
    "Workflow": {"nodes": [{"name": "first", "task": "sync"}]},
    "WorkflowRun": {"workflow": "close-books"},
    "Calendar": {"dates": ["2026-12-25"]},
    "AlertChannel": {"urlsFrom": {"secretKeyRef": {"name": "ops", "key": "urls"}}},
}


@pytest.fixture(scope="module")
def system(cluster: Access) -> str:
    install_operator(cluster, SYSTEM)
    return SYSTEM


@pytest.fixture
async def client(cluster: Access, system: str) -> AsyncIterator[ApiClient]:
    """Speaks as the operator."""
    kubeconfig = cluster.service_account_kubeconfig(system, OPERATOR_ACCOUNT)
    client = await new_client_from_config(config_file=str(kubeconfig))
    lease = CoordinationV1Api(client)
    async with asyncio.timeout(PATIENCE_S):
        while True:  # the API server learns of new roles by a watch
            answer = await lease.read_namespaced_lease_without_preload_content("nobody", system)
            if answer.status == 404:
                break
            await asyncio.sleep(0.2)
    yield client
    await client.close()


@pytest.fixture
def writer(client: ApiClient) -> Writer:
    return Writer(KubeClient(client), Bucket(1_000, 1_000))


@pytest.fixture
def place(cluster: Access) -> str:
    name = f"writes-{secrets.token_hex(3)}"
    create_namespace(cluster, name)
    return name


def create(cluster: Access, namespace: str, kind: str, name: str) -> dict[str, Any]:
    body = {
        "apiVersion": "tickwheel.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": SPECS[kind],
    }  # fmt: skip
    made: dict[str, Any] = cluster.request("POST", f"{_API}/{namespace}/{OURS[kind].plural}", body)
    return made


def status_of(cluster: Access, namespace: str, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.request("GET", f"{_API}/{namespace}/{OURS[kind].plural}/t").get("status") or {}
    return found


async def until(what: str, holds: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"waited for {what}") from None


@pytest.mark.parametrize("kind", SPECS)
async def test_a_status_is_written_and_written_again(cluster: Access, writer: Writer, place: str, kind: str) -> None:
    uid = create(cluster, place, kind, "t")["metadata"]["uid"]
    for generation, (status, reason) in enumerate((("False", "InvalidSpec"), ("True", "Armed"), ("Unknown", "W")), 1):
        condition = {
            "type": "Ready", "status": status, "reason": reason, "message": f"for the {generation}. time",
            "observedGeneration": generation, "lastTransitionTime": f"2026-01-0{generation}T00:00:00Z",
        }  # fmt: skip
        wanted = {"observedGeneration": generation if generation < 3 else None, "conditions": [condition]}
        # The second guess is wrong: it has a status.
        assert (await writer.patch_status(kind, place, "t", uid, wanted, has_status=generation == 3)).ok
        stored = status_of(cluster, place, kind)
        assert stored["conditions"] == [condition]
        assert stored.get("observedGeneration") == wanted["observedGeneration"]
    assert (await writer.patch_status(kind, place, "gone", uid, {}, has_status=True)).status == 404


@pytest.mark.parametrize("has_status", [True, False])
@pytest.mark.parametrize("kind", SPECS)
async def test_the_status_of_one_object_is_never_written_to_another_of_its_name(
    cluster: Access, writer: Writer, place: str, kind: str, has_status: bool
) -> None:
    first = create(cluster, place, kind, "t")["metadata"]["uid"]
    cluster.request("DELETE", f"{_API}/{place}/{OURS[kind].plural}/t")
    second = create(cluster, place, kind, "t")["metadata"]["uid"]
    wanted = {"observedGeneration": 1}
    assert (await writer.patch_status(kind, place, "t", first, wanted, has_status=has_status)).status == 409
    assert status_of(cluster, place, kind) == {}
    assert (await writer.patch_status(kind, place, "t", second, wanted, has_status=has_status)).ok
    assert status_of(cluster, place, kind) == wanted


async def test_a_run_that_a_user_made_is_not_deleted_in_the_place_of_a_view(
    cluster: Access, writer: Writer, place: str
) -> None:
    uid = create(cluster, place, "TaskRun", "t")["metadata"]["uid"]
    assert (await writer.delete_run(place, "t", "the view that had this name")).status == 409
    assert get(cluster, "TaskRun", place, "t")["metadata"]["uid"] == uid


def a_run(name: str, state: RunState) -> RunView:
    now_ms = int(time.time() * 1000)
    ended = now_ms if state.is_final else 0
    return RunView(
        run_id=name, name=name, scheduled_ms=now_ms, created_ms=now_ms, started_ms=now_ms, ended_ms=ended,
        state=state, attempts=1, error_type="", message="", worker="w-0", requested=False,
    )  # fmt: skip


async def test_a_run_is_shown_and_shown_again_as_it_goes_on(cluster: Access, writer: Writer, place: str) -> None:
    uid = create(cluster, place, "ScheduledTask", "sync")["metadata"]["uid"]
    history = History(writer)

    def a_view(*runs: RunView) -> TaskView:
        return TaskView(
            uid=uid, namespace=place, name="sync", handler=HandlerState(0, 0), armed=True, generation=1,
            next_ms=None, last_ms=0, active=0, succeeded=0, failed=0, cancelled=0, skipped=0, runs=list(runs),
        )  # fmt: skip

    await history.load()
    for state in (RunState.PENDING, RunState.RUNNING, RunState.PENDING, RunState.SUCCEEDED):
        await history.sync(a_view(a_run("sync-1", state)), frozenset())
        [shown] = get(cluster, "TaskRun", place)["items"]
        assert shown["status"]["state"] == state.value
    found = History(writer)  # another leader, who does not know of it and makes it a second time
    await found.sync(a_view(a_run("sync-1", RunState.SUCCEEDED)), frozenset())
    assert len(get(cluster, "TaskRun", place)["items"]) == 1
    await history.sync(a_view(), frozenset())
    await found.sync(a_view(), frozenset())
    assert get(cluster, "TaskRun", place)["items"] == []


class Told:
    """An EventRecorder at work, and what the API server has of it."""

    def __init__(self, client: ApiClient, place: str) -> None:
        config = EventConfig(writes_per_s=100, burst=100, interval_s=0.1)
        self.recorder = EventRecorder(KubeClient(client), SystemClock(), instance="replica-0", config=config)
        self.place = place

    def skipped(self, count: int) -> None:
        view = TaskView(
            uid="t-1", namespace=self.place, name="t", handler=HandlerState(0, 0), armed=True, generation=1,
            next_ms=None, last_ms=0, active=0, succeeded=0, failed=0, cancelled=0, skipped=count, runs=[],
            skips=(("Misfired", count, 1_000),),
        )  # fmt: skip
        self.recorder.task_shown(view, NOTHING)

    async def written(self, admin: Access) -> tuple[int, str]:
        """Count and note of the one Event."""
        events = await self.events(admin)
        if not events:
            return 0, ""
        [event] = events
        return event["deprecatedCount"], event["note"]

    async def events(self, admin: Access) -> list[dict[str, Any]]:
        path = f"/apis/events.k8s.io/v1/namespaces/{self.place}/events"
        listed: list[dict[str, Any]] = (await asyncio.to_thread(admin.request, "GET", path))["items"]
        return listed


@pytest.fixture
async def told(client: ApiClient, place: str) -> AsyncIterator[Told]:
    told = Told(client, place)
    writing = asyncio.create_task(told.recorder.run())
    yield told
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_an_event_that_repeats_is_counted_and_says_what_is_so_now(cluster: Access, told: Told) -> None:
    for count in (2, 5, 9):
        told.skipped(count)
        async with asyncio.timeout(PATIENCE_S):
            while (await told.written(cluster))[0] != count:
                await asyncio.sleep(0.1)
        assert f"{count} instants since" in (await told.written(cluster))[1]
    assert set(told.recorder.writes) == {("Event", "ok")}


async def test_an_event_that_is_gone_is_written_again(client: ApiClient, cluster: Access, told: Told) -> None:
    told.skipped(2)
    async with asyncio.timeout(PATIENCE_S):
        while not (await told.written(cluster))[0]:
            await asyncio.sleep(0.1)
    path = f"/apis/events.k8s.io/v1/namespaces/{told.place}/events"
    await asyncio.to_thread(cluster.request, "DELETE", path)  # an Event lives an hour
    told.skipped(5)
    async with asyncio.timeout(PATIENCE_S):
        while not (await told.written(cluster))[0]:
            await asyncio.sleep(0.1)


async def test_an_event_that_the_api_server_refuses_is_given_up_and_the_next_one_is_written(
    cluster: Access, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    told.recorder.pool_scaled("p-1", told.place, "not/a/name", 1, 2, "the API server refuses this name")
    await until("the refusal", lambda: ("Event", "refused") in told.recorder.writes)
    await until("the line in the log", lambda: "is given up" in caplog.text)
    assert not len(told.recorder._queue)
    told.skipped(3)
    async with asyncio.timeout(PATIENCE_S):
        while (await told.written(cluster))[0] != 3:
            await asyncio.sleep(0.1)


async def test_who_leads_is_told_at_each_term(cluster: Access, told: Told) -> None:
    for epoch in (1, 2):
        told.recorder.leading(lease_namespace=told.place, lease_name="l", epoch=epoch)
        told.recorder.leading(lease_namespace=told.place, lease_name="l", epoch=epoch)
    async with asyncio.timeout(PATIENCE_S):
        while sum(event["deprecatedCount"] for event in await told.events(cluster)) < 4:
            await asyncio.sleep(0.1)
    assert set(told.recorder.writes) == {("Event", "ok")}


async def test_a_deployment_and_its_authority_are_applied_again_and_again(
    client: ApiClient, cluster: Access, place: str
) -> None:
    pools = PoolCluster(KubeClient(client))
    uid = create(cluster, place, "WorkerPool", "shops")["metadata"]["uid"]
    versions = []
    for image, replicas, labels in (("a:1", 1, {}), ("a:1", 1, {}), ("b:1", 3, {"team": "x"}), ("b:1", 0, {})):
        pool = WorkerPool.model_validate(
            {
                "apiVersion": "tickwheel.io/v1alpha1", "kind": "WorkerPool",
                "metadata": {"name": "shops", "namespace": place, "uid": uid, "labels": labels},
                "spec": {
                    "template": {
                        "metadata": {"labels": labels}, "spec": {"containers": [{"name": "worker", "image": image}]},
                    }
                },
            }
        )  # fmt: skip
        applied = await pools.apply(deployment(pool, Surroundings(endpoint="https://t", has_ca=True), replicas))
        assert (applied["spec"]["replicas"], applied["metadata"]["ownerReferences"][0]["uid"]) == (replicas, uid)
        versions.append(applied["metadata"]["resourceVersion"])
        await pools.apply_ca(place, f"authority of {image}")
        assert get(cluster, "ConfigMap", place, "tickwheel-ca")["data"] == {"ca.crt": f"authority of {image}"}
    assert versions[0] == versions[1], "what is so already is not written"
    assert len(set(versions)) == 3
    await pools.delete(place, "shops-workers", "another")
    await pools.delete(place, "shops-workers", applied["metadata"]["uid"])
    await pools.delete(place, "shops-workers", applied["metadata"]["uid"])
    assert await pools.read(place, "shops-workers") is None


async def test_only_the_deployment_that_is_meant_is_changed_and_deleted(
    client: ApiClient, cluster: Access, place: str
) -> None:
    uid = create(cluster, place, "WorkerPool", "kept")["metadata"]["uid"]
    await deployments_are_applied_and_deleted_by_uid(PoolCluster(KubeClient(client)), place, uid)


async def test_a_pods_annotation_is_set_changed_and_taken_away(client: ApiClient, cluster: Access, place: str) -> None:
    spec = {"containers": [_CONTAINER], "automountServiceAccountToken": False}
    account = service_account(place, "default")
    apply(cluster, account)  # its controller does not run here
    metadata = {"name": "w", "namespace": place, "labels": {"tickwheel.io/pool": "shops"}}
    apply(cluster, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    for value in ("-1", "-2", None, None):
        await PoolCluster(KubeClient(client)).annotate_pod(
            place, "w", {"controller.kubernetes.io/pod-deletion-cost": value}
        )
        annotations = get(cluster, "Pod", place, "w")["metadata"].get("annotations") or {}
        assert annotations.get("controller.kubernetes.io/pod-deletion-cost") == value


async def test_the_lease_and_the_authority_are_replaced_only_as_they_were_read(client: ApiClient, system: str) -> None:
    leases = KubernetesLeaseStore(KubeClient(client), namespace=system)
    lease = Lease(holder="a", duration_ms=15_000, acquired_ms=1, renewed_ms=1, transitions=0)
    first = await leases.create("twice", lease)
    with pytest.raises(LeaseConflict):
        await leases.create("twice", lease)
    second = await leases.update("twice", first)
    third = await leases.update("twice", msgspec.structs.replace(second, renewed_ms=2_000))
    assert third.version != first.version
    with pytest.raises(LeaseConflict):
        await leases.update("twice", first)

    store = AuthorityStore(KubeClient(client), namespace=system)
    made = Authorities(make_authority(int(time.time() * 1000), 86_400_000))
    stored = await store.write(made, None)
    assert stored is not None
    for _ in range(2):
        stored = await store.write(made, stored)
        assert stored is not None


async def test_a_segment_is_made_once_and_deleted_as_often_as_one_asks(client: ApiClient, system: str) -> None:
    store = KubernetesSegmentStore(KubeClient(client), namespace=system, prefix=f"t{secrets.token_hex(3)}-")
    await store.create(a_segment(1))
    with pytest.raises(SegmentExists):
        await store.create(a_segment(1))
    await store.delete(0, [1])
    await store.delete(0, [1])
    await store.create(a_segment(1))
