"""How many workers a pool has, on a real API server: the Deployment follows the backlog and what is known to come, a
new leader leaves it alone, and idle pods are marked to go first. No kubelet runs here: tests/e2e has the pods."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.caller import Caller
from tests.integration.installation import apply, create_namespace, edit, get, install_operator
from tests.integration.processes import Crew, OperatorProcess
from tests.integration.soak.scenario import until

from tickwheel_cluster import Access

NAMESPACE = "scaling-shop"
SYSTEM = "scaling-system"
TOKEN = "workers-of-this-test"
COST = "controller.kubernetes.io/pod-deletion-cost"


@pytest.fixture(scope="module")
def crew(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Operators of a namespace. All workers of it share one token, since they are this test."""
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    folder = tmp_path_factory.mktemp("scaling")
    (folder / "token").write_text(TOKEN)
    with Crew(cluster, folder, system=SYSTEM, namespace=NAMESPACE) as crew:
        started(crew, "leader")
        yield crew


@pytest.fixture
def leader(crew: Crew) -> OperatorProcess:
    return crew.operators[-1]


def started(crew: Crew, name: str) -> OperatorProcess:
    operator = crew.operator(
        name,
        TICKWHEEL_TOKEN_FILE=str(crew.folder / "token"),
        TICKWHEEL_GATEWAY_SERVICE_URL="http://tickwheel.tickwheel-system.svc:8443",
    )
    operator.wait_ready()
    until(f"{name} to lead", lambda: operator.metrics().get('tickwheel_leader{partition="0"}') == 1)
    return operator


def pool(name: str, autoscaling: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "worker", "image": "shop:1"}]}}
    scaling = (
        {} if autoscaling is None else {"autoscaling": {"targetBacklogPerSlot": 1, "maxReplicas": 5, **autoscaling}}
    )
    return {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"template": template, "slots": 2, **scaling, **spec},
    }


def task(name: str, trigger: dict[str, Any] | None = None) -> dict[str, Any]:
    """A task of the pool and the handler of its own name."""
    return {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "ScheduledTask",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"pool": name, "handler": name, **({"trigger": trigger} if trigger else {})},
    }


def submit(leader: OperatorProcess, name: str, count: int) -> None:
    """All at once, so that the operator never looks at a part of them."""
    path = f"{leader.url}/v1/tasks/{NAMESPACE}/{name}/runs"
    body = {"runs": [{"idempotencyKey": f"{name}-{number}"} for number in range(count)]}
    until("the runs to be taken", lambda: Caller(TOKEN).call("POST", path, body, timeout_s=60).status == 200)


def worker(name: str, pool: str) -> Caller:
    return Caller(TOKEN, namespace=NAMESPACE, pool=pool, name=name, handlers=(pool,))


def take(leader: OperatorProcess, one: Caller, free: int) -> list[int]:
    """The tokens of one run or more, up to `free`."""
    tokens: list[int] = []

    def taken() -> bool:
        tokens.extend(one.pull(leader.url, free=free, wait_ms=5_000).tokens)
        return bool(tokens)

    until("something to do", taken)
    return tokens


def work_off(leader: OperatorProcess, pool: str, count: int) -> None:
    """Do so many runs, and go."""
    one, done = worker("passing", pool), 0
    while done < count:
        tokens = take(leader, one, count - done)
        until("the report", lambda tokens=tokens: one.report(leader.url, succeeded=tokens).status == 200)
        done += len(tokens)


def deployment(cluster: Access, name: str) -> dict[str, Any]:
    found = [d for d in get(cluster, "Deployment", NAMESPACE)["items"] if d["metadata"]["name"] == f"{name}-workers"]
    return found[0] if found else {}


def replicas(cluster: Access, name: str) -> int | None:
    return deployment(cluster, name).get("spec", {}).get("replicas")


def status(cluster: Access, name: str) -> dict[str, Any]:
    found: dict[str, Any] = get(cluster, "WorkerPool", NAMESPACE, name).get("status", {})
    return found


def is_told(cluster: Access, name: str, reason: str, note: str) -> bool:
    """Whether the pool has an Event for this reason with such a note."""
    items = cluster.request("GET", f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")["items"]
    notes = [item["note"] for item in items if (item["regarding"]["name"], item["reason"]) == (name, reason)]
    return any(re.fullmatch(note, text) for text in notes)


def test_a_deployment_follows_the_backlog_from_zero_and_back(cluster: Access, leader: OperatorProcess) -> None:
    apply(cluster, pool("backlog", {"warmUp": "5s", "scaleDownDelay": "3s"}), task("backlog"))
    until("a Deployment without pods", lambda: replicas(cluster, "backlog") == 0)
    until("the task to be armed", lambda: get(cluster, "ScheduledTask", NAMESPACE, "backlog").get("status"))
    submit(leader, "backlog", 6)
    until("three pods to be asked for", lambda: replicas(cluster, "backlog") == 3)
    reason = "backlog 6 at 1 per slot: 6 slots, 3 workers of 2"
    until("the status", lambda: status(cluster, "backlog").get("scaling") == reason)
    shown = status(cluster, "backlog")
    assert shown["desiredReplicas"] == 3
    assert shown["selector"] == "tickwheel.io/pool=backlog"
    labels = f'{{namespace="{NAMESPACE}",pool="backlog"}}'
    assert leader.metrics()[f"tickwheel_pool_replicas_desired{labels}"] == 3
    work_off(leader, "backlog", 6)
    until("none to be asked for", lambda: replicas(cluster, "backlog") == 0)
    until("an Event about more", lambda: is_told(cluster, "backlog", "ScaledUp", "from .*"))
    # Were there two steps down, the second would be told a minute after the first.
    until("one about less", lambda: is_told(cluster, "backlog", "ScaledDown", "from .*: nothing runs, waits or is due"))
    assert get(cluster, "WorkerPool", NAMESPACE, "backlog")["spec"].get("replicas") == 1, "the spec is the user's"


def test_pods_are_asked_for_before_a_known_instant(cluster: Access) -> None:
    apply(cluster, pool("known", {"warmUp": "60s", "scaleDownDelay": "1h"}))
    until("a Deployment without pods", lambda: replicas(cluster, "known") == 0)
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=65)
    apply(cluster, task("known", {"once": {"at": at.isoformat().replace("+00:00", "Z")}}))
    until("a pod to be asked for", lambda: replicas(cluster, "known") == 1)
    assert datetime.now(UTC) >= at - timedelta(seconds=60), "not earlier than a pod takes to be warm"
    shown = get(cluster, "ScheduledTask", NAMESPACE, "known").get("status", {})
    assert not shown.get("lastScheduleTime"), "nothing has fired"
    reason = f"1 run at once from {at:%H:%M:%S} UTC"
    until("the reason to be shown", lambda: reason in status(cluster, "known").get("scaling", ""))


def test_idle_pods_are_marked_to_go_first(cluster: Access, leader: OperatorProcess) -> None:
    apply(cluster, pool("marked", replicas=3, silence="60s"), task("marked"))
    until("the Deployment", lambda: replicas(cluster, "marked") == 3)
    names = [f"marked-{number}" for number in range(3)]
    for name in names:
        metadata = {"name": name, "namespace": NAMESPACE, "labels": {"tickwheel.io/pool": "marked"}}
        spec = {"containers": [{"name": "worker", "image": "shop:1"}], "automountServiceAccountToken": False}
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {**metadata, "name": "default", "labels": {}},
        }
        apply(cluster, account, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        worker(name, "marked").pull(leader.url, free=0)
    until("the task to be armed", lambda: get(cluster, "ScheduledTask", NAMESPACE, "marked").get("status"))
    submit(leader, "marked", 1)
    take(leader, worker("marked-1", "marked"), 1)

    def costs() -> dict[str, str]:
        pods = {name: get(cluster, "Pod", NAMESPACE, name)["metadata"] for name in names}
        return {name: pod.get("annotations", {}).get(COST, "") for name, pod in pods.items()}

    edit(cluster, "WorkerPool", NAMESPACE, "marked", lambda document: document["spec"].update(replicas=1))
    until("the Deployment to follow", lambda: replicas(cluster, "marked") == 1)
    assert costs() == {"marked-0": "-10001", "marked-1": "", "marked-2": "-10001"}
    edit(cluster, "WorkerPool", NAMESPACE, "marked", lambda document: document["spec"].update(replicas=3))
    until("the Deployment to follow", lambda: replicas(cluster, "marked") == 3)


def test_a_new_leader_leaves_the_workers_that_there_are(cluster: Access, crew: Crew) -> None:
    first = crew.operators[-1]
    apply(cluster, pool("kept", {"scaleDownDelay": "1h"}), task("kept"))
    until("the task to be armed", lambda: get(cluster, "ScheduledTask", NAMESPACE, "kept").get("status"))
    submit(first, "kept", 8)
    until("four pods to be asked for", lambda: replicas(cluster, "kept") == 4)
    work_off(first, "kept", 8)
    before = deployment(cluster, "kept")["metadata"]["generation"]
    first.kill()
    second = started(crew, "second")
    desired = f'tickwheel_pool_replicas_desired{{namespace="{NAMESPACE}",pool="kept"}}'
    until("the second to have decided", lambda: second.metrics().get(desired) == 4)
    time.sleep(5)  # a few looks
    assert second.metrics()[desired] == 4
    assert deployment(cluster, "kept")["metadata"]["generation"] == before, "nobody asked for another number meanwhile"


def test_a_cluster_without_a_metrics_server_is_told_of_once_and_served(crew: Crew, cluster: Access) -> None:
    leader = crew.operators[-1]
    words = "cannot read the metrics of worker pods: the API server answers 404"
    until("it to be told", lambda: words in Path(leader.log).read_text())
    assert Path(leader.log).read_text().count(words) == 1
    assert leader.alive
