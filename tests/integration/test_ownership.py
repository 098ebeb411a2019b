"""Two releases that see one namespace: one serves it, the other leaves it alone. What the owner owns it restores."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import urllib.error
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import new_client_from_config
from tests.contract.clock import ManualClock
from tests.integration.hasty_operator import SITE
from tests.integration.installation import OPERATOR_ACCOUNT, apply, create_namespace, edit, get, install_operator
from tests.integration.processes import PATIENT_LEASE, OperatorProcess, customized
from tests.integration.soak.scenario import until

from tickwheel_cluster import Access
from tickwheel_operator.controllers.ownermarks import OwnerMarks
from tickwheel_operator.controllers.ownership import Ownership, OwnershipConfig
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.reasons import SERVED_BY_ANOTHER

ONE, TWO, SECURE = (f"owner-{name}-{secrets.token_hex(3)}" for name in ("one", "two", "secure"))
"""With Leases that nobody holds yet, also on a cluster that was used before."""
LEASE = "tickwheel-partition-0"
PATIENCE_S = 90.0
ABANDONED_MS = 2_000
"""By the clocks of the test, which stand still until it moves them."""


@pytest.fixture(scope="module")
def systems(cluster: Access) -> tuple[str, str]:
    for system in (ONE, TWO, SECURE):
        install_operator(cluster, system)
    return ONE, TWO


@pytest.fixture
def shared(cluster: Access) -> str:
    name = f"shared-{secrets.token_hex(3)}"
    create_namespace(cluster, name)
    return name


def an_object(kind: str, namespace: str, spec: dict[str, Any], name: str = "t") -> dict[str, Any]:
    return {
        "apiVersion": "tickwheel.io/v1alpha1", "kind": kind, "spec": spec,
        "metadata": {"name": name, "namespace": namespace},
    }  # fmt: skip


def mark(cluster: Access, namespace: str) -> str:
    try:
        return str(get(cluster, "ConfigMap", namespace, "tickwheel-owner")["data"]["release"])
    except urllib.error.HTTPError:
        return ""


@contextlib.contextmanager
def release(cluster: Access, folder: Path, system: str, namespace: str, **more: str) -> Iterator[OperatorProcess]:
    with OperatorProcess(
        cluster, folder, system, namespace=system, TICKWHEEL_WATCH_NAMESPACES=namespace,
        TICKWHEEL_ADVERTISE_URL="http://127.0.0.1:1", **PATIENT_LEASE, **more,
    ) as operator:  # fmt: skip
        operator.wait_ready()
        until(f"{system} to lead", lambda: operator.metrics()['tickwheel_leader{partition="0"}'] == 1)
        yield operator


def test_the_second_release_leaves_the_namespace_alone_until_it_is_handed_over(
    cluster: Access, systems: tuple[str, str], shared: str, tmp_path: Path
) -> None:
    template = {"spec": {"containers": [{"name": "worker", "image": "worker"}]}}
    with release(cluster, tmp_path, TWO, shared) as second:
        with release(cluster, tmp_path, ONE, shared) as first:
            apply(cluster, an_object("WorkerPool", shared, {"template": template}, "shops"))
            until("one of them to mark the namespace", lambda: mark(cluster, shared) in (ONE, TWO))
            owner, other = (first, second) if mark(cluster, shared) == ONE else (second, first)
            task = {"pool": "shops", "handler": "h", "trigger": {"fixedRate": "200ms"}}
            apply(cluster, an_object("ScheduledTask", shared, task))
            until("the owner to fire", lambda: owner.metrics()["tickwheel_runs_created_total"] >= 20)
            until(
                "the other to see whose it is",
                lambda: other.metrics()['tickwheel_namespaces{owner="another"}'] == 1,
            )
            before = get(cluster, "Deployment", shared, "shops-workers")["metadata"]["generation"]
            fired = owner.metrics()["tickwheel_runs_created_total"]
            until("more", lambda: owner.metrics()["tickwheel_runs_created_total"] >= fired + 20)
            assert other.metrics()["tickwheel_runs_created_total"] == 0
            assert other.metrics().get('tickwheel_projection_writes_total{kind="ScheduledTask",outcome="ok"}', 0) == 0
            assert get(cluster, "Deployment", shared, "shops-workers")["metadata"]["generation"] == before

            def is_told() -> bool:
                events = cluster.request("GET", f"/api/v1/namespaces/{shared}/events")["items"]
                return any(e["reason"] == SERVED_BY_ANOTHER and owner.name in e["message"] for e in events)

            until("an Event that says whose it is", is_told)
            if other is first:
                return
        cluster.request("DELETE", f"/api/v1/namespaces/{shared}/configmaps/tickwheel-owner")
        until("the second to mark it", lambda: mark(cluster, shared) == TWO)
        until("the second to fire", lambda: second.metrics()["tickwheel_runs_created_total"] > 0)


def test_the_authority_that_somebody_changed_or_deleted_is_restored_under_the_same_leader(
    cluster: Access, systems: tuple[str, str], shared: str, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.crt"
    template = {"spec": {"containers": [{"name": "worker", "image": "worker"}]}}

    def trusted() -> str:
        try:
            return str(get(cluster, "ConfigMap", shared, "tickwheel-ca")["data"]["ca.crt"])
        except urllib.error.HTTPError:
            return ""

    apply(cluster, an_object("WorkerPool", shared, {"template": template}, "shops"))
    with OperatorProcess(
        cluster, tmp_path, SECURE, namespace=SECURE, TICKWHEEL_WATCH_NAMESPACES=shared, TICKWHEEL_TLS_MODE="Own",
        TICKWHEEL_ADVERTISE_URL="https://127.0.0.1:1", **PATIENT_LEASE, **customized(tmp_path, SITE),
    ) as operator:  # fmt: skip
        until("the authority", lambda: trusted() != "")
        authority.write_text(trusted())
        edit(cluster, "ConfigMap", shared, "tickwheel-ca", lambda found: found.update(data={"ca.crt": "another's"}))
        until("it to be restored", lambda: trusted() == authority.read_text())
        cluster.request("DELETE", f"/api/v1/namespaces/{shared}/configmaps/tickwheel-ca")
        until("it to be made again", lambda: trusted() == authority.read_text())
        assert operator.metrics()['tickwheel_epoch{partition="0"}'] >= 1


# --- the marks by themselves -----------------------------------------------------------------------------------------


class Release:
    """What of a release marks namespaces, with the role of a real one."""

    def __init__(self, client: ApiClient, system: str, namespaces: list[str]) -> None:
        self.changes: list[str] = []
        self.clock = ManualClock()
        marks = OwnerMarks(KubeClient(client), namespaces=(), lease_name=LEASE)
        config = OwnershipConfig(round_s=0.2, abandoned_s=ABANDONED_MS / 1_000)
        self.ownership = Ownership(marks, self.clock, own=system, config=config)
        self.ownership.namespaces = lambda: namespaces
        self.ownership.on_change = self.changes.extend

    def __enter__(self) -> Ownership:
        self.ownership.lead()
        self._task = asyncio.create_task(self.ownership.run())
        return self.ownership

    def __exit__(self, *_: object) -> None:
        self._task.cancel()


@pytest.fixture
async def clients(cluster: Access, systems: tuple[str, str]) -> AsyncIterator[list[ApiClient]]:
    made = [
        await new_client_from_config(config_file=str(cluster.service_account_kubeconfig(system, OPERATOR_ACCOUNT)))
        for system in systems
    ]
    yield made
    for client in made:
        await client.close()


async def holds(what: str, condition: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited for {what}") from None


async def test_of_two_releases_that_mark_the_same_namespaces_at_once_each_gets_other_ones(
    cluster: Access, clients: list[ApiClient]
) -> None:
    names = [f"race-{secrets.token_hex(3)}-{number}" for number in range(10)]
    for name in names:
        create_namespace(cluster, name)
    _renew(cluster, ONE), _renew(cluster, TWO)
    with Release(clients[0], ONE, names) as one, Release(clients[1], TWO, names) as two:
        await holds("all to be served", lambda: all(one.serves(name) or two.serves(name) for name in names))
        await holds(
            "both to know", lambda: all(one.serves(name) != two.serves(name) for name in names),
        )  # fmt: skip
        for name in names:
            assert mark(cluster, name) == (ONE if one.serves(name) else TWO)


async def test_an_owner_that_stands_still_is_followed_and_does_not_come_back(
    cluster: Access, clients: list[ApiClient], shared: str
) -> None:
    _renew(cluster, ONE)
    first = Release(clients[0], ONE, [shared])
    with first as one:
        await holds("the first", lambda: one.serves(shared))
    second = Release(clients[1], TWO, [shared])
    with second as two:
        for _ in range(5):  # it lives: its Lease changes within each time after which it were gone
            await asyncio.to_thread(_renew, cluster, ONE)
            version = get(cluster, "Lease", ONE, LEASE)["metadata"]["resourceVersion"]
            await holds("the second to see its Lease", lambda v=version: two._leases.get(ONE, ("",))[0] == v)
            second.clock.advance(ABANDONED_MS - 1)
            await asyncio.sleep(0.5)  # a few rounds
        assert not two.serves(shared)
        assert (fault := two.fault(shared)) is not None and fault.reason == SERVED_BY_ANOTHER
        second.clock.advance(1)
        await holds("the second to take over", lambda: two.serves(shared))
        with first as one:
            await asyncio.to_thread(_renew, cluster, TWO)
            await holds("the first to see it", lambda: not one.serves(shared))
            assert first.changes[-1] == shared
        assert two.serves(shared)


def _renew(cluster: Access, system: str) -> None:
    """As a leader does."""
    lease = {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE, "namespace": system},
        "spec": {"holderIdentity": "x"},
    }  # fmt: skip
    apply(cluster, lease)
    edit(cluster, "Lease", system, LEASE, lambda found: found["spec"].update(holderIdentity=secrets.token_hex(4)))
