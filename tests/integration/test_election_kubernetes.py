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
from tickwheel_operator.election.kubernetes import KubernetesLeaseStore
from tickwheel_operator.election.lease import LeaseConflict, LeaseRefused, LeaseUnavailable
from tickwheel_operator.election.peers import Peers
from tickwheel_operator.ledger.transport import Transport

_numbers = itertools.count()


@pytest.fixture
async def client(cluster):
    client = await new_client_from_config(config_file=str(cluster.admin_kubeconfig))
    yield client
    await client.close()


@pytest.fixture
async def leases(client):
    """A namespace of the test's own."""
    namespace = f"election-{uuid.uuid4().hex[:6]}-{next(_numbers)}"
    body = {"metadata": {"name": namespace}}
    assert (await Transport(client).request("POST", "/api/v1/namespaces", what="namespace", body=body)).ok
    return namespace


@pytest.fixture
async def stores(client, leases):
    return lambda: KubernetesLeaseStore(client, namespace=leases, timeout_s=30)


class TestLeaseStore(LeaseStoreContract):
    pass


async def test_a_leader_hands_over_and_the_lease_reads_like_any_other(client, leases):
    def elector(identity: str) -> Elector:
        store = KubernetesLeaseStore(client, namespace=leases)
        url = f"https://{identity}:8443"
        return Elector(store, name="tickwheel-p0", identity=identity, endpoint_url=url, clock=SystemClock())

    term = await elector("a").acquire()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{leases}/leases/tickwheel-p0"
    found = json.loads((await Transport(client).request("GET", path, what="get")).body)
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
    assert (await Transport(client).request("POST", path, what="bare lease", body=body)).ok
    lease = await KubernetesLeaseStore(client, namespace=leases).get("bare")
    assert (lease.holder, lease.transitions, lease.duration_ms) == ("", 0, 0)


async def test_a_lease_that_a_person_deleted_is_not_made_again_by_a_renewal(client, leases):
    store = KubernetesLeaseStore(client, namespace=leases)
    lease = await store.create("p0", a_lease())
    path = f"/apis/coordination.k8s.io/v1/namespaces/{leases}/leases/p0"
    assert (await Transport(client).request("DELETE", path, what="delete")).ok
    with pytest.raises(LeaseConflict):
        await store.update("p0", lease)
    assert await store.get("p0") is None


async def test_without_rights_the_refusal_names_them(cluster, client, leases):
    account = {"metadata": {"name": "nobody"}}
    path = f"/api/v1/namespaces/{leases}/serviceaccounts"
    assert (await Transport(client).request("POST", path, what="account", body=account)).ok
    kubeconfig = cluster.service_account_kubeconfig(leases, "nobody")
    async with await new_client_from_config(config_file=str(kubeconfig)) as poor:
        store = KubernetesLeaseStore(poor, namespace=leases)
        for call in (store.get("p0"), store.create("p0", a_lease()), store.update("p0", a_lease(version="1/u"))):
            with pytest.raises(LeaseRefused, match="get, create, update and watch of leases"):
                await call


async def test_a_server_that_is_not_there_is_unavailable(client, leases):
    client.configuration.host = "https://127.0.0.1:1"
    store = KubernetesLeaseStore(client, namespace=leases)
    for call in (store.get("p0"), store.create("p0", a_lease()), anext(store.watch("p0"))):
        with pytest.raises(LeaseUnavailable, match=r"127\.0\.0\.1:1"):
            await call


async def test_the_end_of_a_replicas_container_is_heard_of_once(client, leases):
    transport = Transport(client)
    pods = f"/api/v1/namespaces/{leases}/pods"

    async def create(name: str) -> None:
        spec = {"containers": [{"name": "operator", "image": "x"}, {"name": "sidecar", "image": "x"}]}
        body = {"metadata": {"name": name, "labels": {"app": "tickwheel"}}, "spec": spec}
        assert (await transport.request("POST", pods, what="create", body=body)).ok

    async def report(name: str, container: str, *, ended: str, running: bool) -> None:
        terminated = {"exitCode": 137, "containerID": ended}
        state = {"running": {}} if running else {"terminated": terminated}
        of_container = {
            "name": container, "image": "x", "imageID": "", "ready": running, "restartCount": 1, "state": state,
            "lastState": {"terminated": terminated} if running else {},
        }  # fmt: skip
        found = json.loads((await transport.request("GET", f"{pods}/{name}", what="get")).body)
        found["status"] = {"phase": "Running", "containerStatuses": [of_container]}
        assert (await transport.request("PUT", f"{pods}/{name}/status", what="status", body=found)).ok

    async def until(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.02)

    await create("before")
    await report("before", "operator", ended="containerd://old", running=False)
    await create("leader")
    ends: list[str] = []
    peers = Peers(transport, namespace=leases, selector="app=tickwheel", on_end=ends.append)
    watching = asyncio.create_task(peers.run())
    await until(lambda: len(peers._ends) == 2)  # it has seen both
    await report("leader", "sidecar", ended="containerd://1", running=False)
    await report("leader", "operator", ended="containerd://2", running=False)
    await report("leader", "operator", ended="containerd://2", running=True)
    await report("leader", "operator", ended="containerd://3", running=True)
    await report("before", "operator", ended="containerd://new", running=True)
    await until(lambda: "before" in ends)  # the last, and a watch is in order
    assert ends == ["leader", "leader", "before"], "neither what had ended before, nor a sidecar, nor one twice"
    watching.cancel()
