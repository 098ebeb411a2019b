"""The election on a real API server: the contract of the store, and a hand-over."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Callable

import pytest
from kubernetes.aio.config import new_client_from_config
from tests.contract.lease_store import LeaseStoreContract, a_lease

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.election.elector import Elector
from tickwheel_operator.election.identity import make_identity
from tickwheel_operator.election.kubernetes import KubernetesLeaseStore
from tickwheel_operator.election.lease import LeaseConflict, LeaseRefused, LeaseUnavailable
from tickwheel_operator.election.peers import Peers
from tickwheel_operator.kube.client import KubeClient

_numbers = itertools.count()


@pytest.fixture
async def leases(client):
    """A namespace of the test's own."""
    namespace = f"election-{uuid.uuid4().hex[:6]}-{next(_numbers)}"
    body = {"metadata": {"name": namespace}}
    assert (await KubeClient(client).request("POST", "/api/v1/namespaces", what="namespace", body=body)).ok
    return namespace


@pytest.fixture
async def stores(client, leases):
    return lambda: KubernetesLeaseStore(KubeClient(client), namespace=leases, timeout_s=30)


class TestLeaseStore(LeaseStoreContract):
    pass


async def test_a_leader_hands_over_and_the_lease_reads_like_any_other(client, leases):
    def elector(identity: str) -> Elector:
        store = KubernetesLeaseStore(KubeClient(client), namespace=leases)
        url = f"https://{identity}:8443"
        return Elector(store, name="tickwheel-p0", identity=identity, endpoint_url=url, clock=SystemClock())

    term = await elector("a").acquire()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{leases}/leases/tickwheel-p0"
    found = json.loads((await KubeClient(client).request("GET", path, what="get")).body)
    assert found["spec"]["holderIdentity"] == "a"
    assert found["spec"]["leaseDurationSeconds"] == 15
    assert found["metadata"]["annotations"]["tickwheel.io/endpoint"] == "https://a:8443"
    standing = asyncio.create_task(elector("b").acquire())
    await asyncio.sleep(0.5)
    await term.release()
    async with asyncio.timeout(30):
        successor = await standing
    assert successor.epoch_floor == 1
    assert successor.is_fresh()
    await successor.release()


async def test_a_lease_that_another_tool_made_is_read(client, leases):
    path = f"/apis/coordination.k8s.io/v1/namespaces/{leases}/leases"
    body = {"metadata": {"name": "bare"}, "spec": {}}
    assert (await KubeClient(client).request("POST", path, what="bare lease", body=body)).ok
    lease = await KubernetesLeaseStore(KubeClient(client), namespace=leases).get("bare")
    assert (lease.holder, lease.transitions, lease.duration_ms) == ("", 0, 0)


async def test_a_lease_that_a_person_deleted_is_not_made_again_by_a_renewal(client, leases):
    store = KubernetesLeaseStore(KubeClient(client), namespace=leases)
    lease = await store.create("p0", a_lease())
    path = f"/apis/coordination.k8s.io/v1/namespaces/{leases}/leases/p0"
    assert (await KubeClient(client).request("DELETE", path, what="delete")).ok
    with pytest.raises(LeaseConflict):
        await store.update("p0", lease)
    assert await store.get("p0") is None


async def test_without_rights_the_refusal_names_them(cluster, client, leases):
    account = {"metadata": {"name": "nobody"}}
    path = f"/api/v1/namespaces/{leases}/serviceaccounts"
    assert (await KubeClient(client).request("POST", path, what="account", body=account)).ok
    kubeconfig = cluster.service_account_kubeconfig(leases, "nobody")
    async with await new_client_from_config(config_file=str(kubeconfig)) as poor:
        store = KubernetesLeaseStore(KubeClient(poor), namespace=leases)
        for call in (store.get("p0"), store.create("p0", a_lease()), store.update("p0", a_lease(version="1/u"))):
            with pytest.raises(LeaseRefused, match="get, create, update and watch of leases"):
                await call


async def test_a_server_that_is_not_there_is_unavailable(client, leases):
    client.configuration.host = "https://127.0.0.1:1"
    store = KubernetesLeaseStore(KubeClient(client), namespace=leases)
    for call in (store.get("p0"), store.create("p0", a_lease()), anext(store.watch("p0"))):
        with pytest.raises(LeaseUnavailable, match=r"127\.0\.0\.1:1"):
            await call


class Pods:
    """Pods of one namespace, whose statuses are written as kubelet would."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._path = f"/api/v1/namespaces/{namespace}/pods"

    async def create(self, name: str) -> None:
        spec = {"containers": [{"name": "operator", "image": "x"}, {"name": "sidecar", "image": "x"}]}
        body = {"metadata": {"name": name, "labels": {"app": "tickwheel"}}, "spec": spec}
        assert (await self._client.request("POST", self._path, what="create", body=body)).ok

    async def report(self, name: str, container: str, *, ended: str, second: int, restarted: int | None = None) -> None:
        """The container `ended` in this second of the minute; another one of its name runs since `restarted`."""
        terminated = {"exitCode": 137, "containerID": ended, "finishedAt": f"2026-11-30T10:00:{second:02d}Z"}
        running = {"startedAt": f"2026-11-30T10:00:{restarted:02d}Z"} if restarted is not None else None
        of_container = {
            "name": container, "image": "x", "imageID": "", "ready": running is not None, "restartCount": 1,
            "state": {"running": running} if running is not None else {"terminated": terminated},
            "lastState": {"terminated": terminated} if running is not None else {},
        }  # fmt: skip
        found = json.loads((await self._client.request("GET", f"{self._path}/{name}", what="get")).body)
        found["status"] = {"phase": "Running", "containerStatuses": [of_container]}
        assert (await self._client.request("PUT", f"{self._path}/{name}/status", what="status", body=found)).ok


async def _until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.02)


_TEN_MS = 1_796_032_800_000
"""10:00 on the day of the pods."""


async def test_the_end_of_a_replicas_container_is_heard_of_once(client, leases):
    transport = KubeClient(client)
    pods = Pods(transport, leases)
    await pods.create("before")
    await pods.report("before", "operator", ended="containerd://old", second=1)
    await pods.create("leader")
    ends: list[tuple[str, int]] = []
    peers = Peers(transport, namespace=leases, selector="app=tickwheel", on_end=lambda *end: ends.append(end))
    watching = asyncio.create_task(peers.run())
    await _until(lambda: len(peers._ends) == 2)  # it has seen both
    await pods.report("leader", "sidecar", ended="containerd://1", second=2)
    await pods.report("leader", "operator", ended="containerd://2", second=3)
    await pods.report("leader", "operator", ended="containerd://2", second=3, restarted=4)
    await pods.report("leader", "operator", ended="containerd://3", second=5, restarted=6)
    await pods.report("before", "operator", ended="containerd://new", second=7, restarted=8)
    await _until(lambda: "before" in dict(ends))  # the last, and a watch is in order
    told = [(pod, before_ms - _TEN_MS) for pod, before_ms in ends]
    assert told == [("leader", 3_000), ("leader", 6_000), ("before", 8_000)], (
        "neither what had ended before, nor a sidecar, nor one twice"
    )
    watching.cancel()


async def test_the_end_of_a_leaders_container_that_is_told_late_does_not_depose_the_process_after_it(client, leases):
    transport = KubeClient(client)
    pods = Pods(transport, leases)
    await pods.create("leader-0")

    def candidate(pod: str, second: int) -> Elector:
        identity = make_identity(pod, started_ms=_TEN_MS + second * 1_000, nonce="n")
        store = KubernetesLeaseStore(KubeClient(client), namespace=leases)
        return Elector(store, name="p0", identity=identity, endpoint_url="http://x", clock=SystemClock())

    # Given the second process of the pod's container, which leads, and a follower that knows nothing of a restart.
    second = await candidate("leader-0", 21).acquire()
    follower = candidate("follower-0", 1)
    standing = asyncio.create_task(follower.acquire())
    heard: list[int] = []

    def ended(pod: str, before_ms: int) -> None:
        follower.replica_ended(pod, before_ms)
        heard.append(before_ms)

    peers = Peers(transport, namespace=leases, selector="app=tickwheel", on_end=ended)
    watching = asyncio.create_task(peers.run())
    await _until(lambda: peers._ends)
    await _until(lambda: follower.observed.holder.startswith("leader-0"))

    # When the end of the first is told, alone and then with the start of the second, then the Lease stays.
    await pods.report("leader-0", "operator", ended="containerd://1", second=20)
    await pods.report("leader-0", "operator", ended="containerd://2", second=20, restarted=21)
    await _until(lambda: len(heard) == 2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(standing), 3)
    assert second.is_fresh()

    # And when the second ends, it is replaced though its Lease is fresh.
    await pods.report("leader-0", "operator", ended="containerd://3", second=40)
    await asyncio.wait_for(standing, 60)
    watching.cancel()
