"""From a pod to its pool: by uids, from the watch where it can, with few requests, and never by guessing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client as kubernetes_client

from tickwheel_operator.controllers.pods import PodWatch
from tickwheel_operator.identity.pod_owners import OwnerUnknown, PodOwners, PoolOwner, controller_of
from tickwheel_operator.kube.client import KubeClient

OWN = PoolOwner("shops", "u-pool")


class ManualClock:
    ms = 0

    def now_ms(self) -> int:
        return self.ms

    def now_us(self) -> int:
        return self.now_ms() * 1_000

    def boot_ms(self) -> int:
        return self.ms


class ApiServer:
    """Answers with the objects that it has, by their paths, and counts the requests."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.status = 200
        self.body: bytes | None = None
        """Sent instead of an object."""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        assert "PartialObjectMetadata" in request.headers["Accept"], "a pod's spec may be large, and is not needed"
        self.asked.append(request.path.rsplit("/", 2)[-2])
        await asyncio.sleep(0.01)
        if self.status != 200:
            return web.json_response({"reason": "Forbidden", "message": "no"}, status=self.status)
        if self.body is not None:
            return web.Response(body=self.body)
        found = self.objects.get(request.path)
        return web.json_response({"metadata": found} if found else {}, status=200 if found else 404)

    def add(self, path: str, uid: str, owner: dict[str, Any] | None = None) -> None:
        self.objects[path] = {"uid": uid, "ownerReferences": [owner] if owner else []}


def reference(kind: str, name: str, uid: str, version: str = "apps/v1", controller: bool = True) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": controller}


PODS, SETS, DEPLOYMENTS = (
    "/api/v1/namespaces/ns/pods",
    "/apis/apps/v1/namespaces/ns/replicasets",
    "/apis/apps/v1/namespaces/ns/deployments",
)
POOL = reference("WorkerPool", "shops", "u-pool", "tickwheel.io/v1alpha1")


@pytest.fixture
async def api() -> Any:
    """A chain from two pods to the pool `shops`."""
    server = ApiServer()
    for pod in ("p1", "p2"):
        server.add(f"{PODS}/{pod}", f"u-{pod}", reference("ReplicaSet", "rs", "u-rs"))
    server.add(f"{SETS}/rs", "u-rs", reference("Deployment", "d", "u-d"))
    server.add(f"{DEPLOYMENTS}/d", "u-d", POOL)
    runner = web.ServerRunner(web.Server(server.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"  # type: ignore[attr-defined]
    yield server
    await runner.cleanup()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def owners(api: Any, clock: ManualClock) -> Any:
    async with kubernetes_client.ApiClient(kubernetes_client.Configuration(host=api.url)) as client:
        yield PodOwners(KubeClient(client), clock)


async def test_a_pods_pool_is_found_up_its_controllers_and_remembered(api, owners):
    assert await owners.owner("ns", "p1", "u-p1") == OWN
    assert api.asked == ["pods", "replicasets", "deployments"]
    assert await owners.owner("ns", "p2", "u-p2") == OWN
    assert api.asked[3:] == ["pods"], "what is shared is asked for once"
    for _ in range(3):
        assert await owners.owner("ns", "p1", "u-p1") == OWN
    assert len(api.asked) == 4


async def test_a_pod_that_the_watch_knows_is_not_asked_for(api, owners):
    watch = PodWatch(lambda gone: None, owners)
    metadata = {"uid": "u-p1", "namespace": "ns", "name": "p1", **api.objects[f"{PODS}/p1"]}
    watch.seen(watch.read({"metadata": metadata}, deleted=False))
    assert await owners.owner("ns", "p1", "u-p1") == OWN
    assert api.asked == ["replicasets", "deployments"]
    # An adopted pod has another owner at once, and one that is gone is forgotten.
    metadata["ownerReferences"] = []
    watch.seen(watch.read({"metadata": metadata}, deleted=False))
    assert await owners.owner("ns", "p1", "u-p1") is None
    watch.seen(watch.read({"metadata": metadata}, deleted=True))
    assert (owners._watched, owners._owners) == ({}, {})


@pytest.mark.parametrize(("path", "uid"), [(f"{PODS}/p1", "u-x"), (f"{SETS}/rs", "u-x"), (f"{DEPLOYMENTS}/d", "u-x")])
async def test_an_object_that_took_anothers_name_is_not_taken_for_it(api, owners, path, uid):
    api.objects[path]["uid"] = uid
    assert await owners.owner("ns", "p1", "u-p1") is None


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        (f"{PODS}/p1", None),
        (f"{PODS}/p1", reference("ReplicaSet", "rs", "u-rs", controller=False)),
        (f"{PODS}/p1", reference("ReplicaSet", "rs", "u-rs", version="example.com/v1")),
        (f"{PODS}/p1", reference("StatefulSet", "s", "u-s")),
        (f"{PODS}/p1", reference("Pod", "p1", "u-p1", version="v1")),
        (f"{SETS}/rs", reference("ReplicaSet", "gone", "u-gone")),
        (f"{DEPLOYMENTS}/d", reference("WorkerPool", "shops", "u-pool", "example.com/v1")),
    ],
    ids=["none", "no controller", "another group", "not of a Deployment", "itself", "one that is gone", "another kind"],
)
async def test_a_chain_that_does_not_end_at_a_pool_has_no_owner(api, owners, path, owner):
    api.objects[path]["ownerReferences"] = [owner] if owner else []
    assert await owners.owner("ns", "p1", "u-p1") is None


async def test_what_was_looked_up_is_looked_up_again_after_a_minute(api, owners, clock):
    assert await owners.owner("ns", "p1", "u-p1") == OWN
    api.objects[f"{PODS}/p1"]["ownerReferences"] = []
    clock.ms = 59_999
    assert await owners.owner("ns", "p1", "u-p1") == OWN
    clock.ms = 60_000
    assert await owners.owner("ns", "p1", "u-p1") is None


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_an_api_server_that_refuses_makes_nobody_an_owner(api, owners, status):
    api.status = status
    with pytest.raises(OwnerUnknown, match="owner of Pod ns/p1"):
        await owners.owner("ns", "p1", "u-p1")
    api.status = 200
    assert await owners.owner("ns", "p1", "u-p1") == OWN, "a failure is not remembered"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b"{}", b'{"metadata":[]}', b'{"metadata":{"uid":"u-p1","ownerReferences":[7]}}']
)
async def test_an_answer_that_cannot_be_read_makes_nobody_an_owner(api, owners, body):
    api.body = body
    with pytest.raises(OwnerUnknown):
        await owners.owner("ns", "p1", "u-p1")


@pytest.mark.parametrize("owned", [True, False])
async def test_pods_that_are_known_go_on_for_ten_minutes_while_the_api_server_cannot_be_asked(
    api, owners, clock, owned
):
    if not owned:
        api.objects[f"{PODS}/p1"]["ownerReferences"] = []
    known = OWN if owned else None
    assert await owners.owner("ns", "p1", "u-p1") == known
    api.status, clock.ms = 503, 60_000
    asked = len(api.asked)
    for _ in range(3):
        assert await owners.owner("ns", "p1", "u-p1") == known
    assert len(api.asked) == asked + 1, "an outage is asked about once in five seconds"
    with pytest.raises(OwnerUnknown):
        await owners.owner("ns", "p2", "u-p2")
    clock.ms = 600_000
    with pytest.raises(OwnerUnknown):
        await owners.owner("ns", "p1", "u-p1")


async def test_many_pods_that_start_together_ask_little(api, owners):
    for number in range(200):
        api.add(f"{PODS}/q{number}", f"u-q{number}", reference("ReplicaSet", "rs", "u-rs"))
    found = await asyncio.gather(*(owners.owner("ns", f"q{n}", f"u-q{n}") for n in range(200)))
    assert set(found) == {OWN}
    assert api.asked.count("replicasets") <= 16 and api.asked.count("deployments") <= 16


async def test_what_is_remembered_is_bounded(api, clock):
    async with kubernetes_client.ApiClient(kubernetes_client.Configuration(host=api.url)) as client:
        owners = PodOwners(KubeClient(client), clock, size=10)
        for number in range(30):
            assert await owners.owner("ns", f"none-{number}", f"u-{number}") is None
            owners.note(f"u-watched-{number}", None)
        assert len(owners._owners) == len(owners._asked) == len(owners._watched) == 10


def test_the_controller_is_the_owner_that_says_so():
    other = reference("ConfigMap", "c", "u-c", version="v1", controller=False)
    found = controller_of({"ownerReferences": [other, POOL]})
    assert found is not None and (found.group, found.kind, found.uid) == ("tickwheel.io", "WorkerPool", "u-pool")
    assert controller_of({"ownerReferences": [other]}) is None and controller_of({}) is None
