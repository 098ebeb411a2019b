"""Each layer of the operator raises for one object: that object says so, and all others go on.

Two replicas as they really run, with one fault in each layer of both (`broken_operator`), a worker, and a task that is
well. A fault of the engine ends terms of both replicas, and no process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.integration import broken_operator, hasty_operator
from tests.integration.installation import (
    apply,
    create_namespace,
    custom_object,
    edit,
    get,
    install_operator,
    service_account,
)
from tests.integration.processes import Crew, customized
from tests.integration.soak.scenario import HANDLERS, until

from tickwheel_cluster import Access

NAMESPACE, SYSTEM = "isolation", "isolation-system"
_TASK = {"pool": "shops", "handler": "quick"}
_OFTEN = {"fixedRate": "500ms"}
_TEMPLATE = {"template": {"spec": {"containers": [{"name": "worker", "image": "registry.invalid/worker:1"}]}}}
_SCALED = {**_TEMPLATE, "autoscaling": {"minReplicas": 1, "maxReplicas": 2}}
_CALENDAR = {"dates": ["2026-10-01"]}


@dataclass(frozen=True)
class Broken:
    """An object that a layer raises for."""

    layer: str
    kind: str
    name: str
    spec: dict[str, Any]


BROKEN = (
    Broken("watch", "ScheduledTask", "watch", {**_TASK, "trigger": _OFTEN}),
    Broken("watch", "WorkerPool", "watch-pool", {}),
    Broken("catalog", "ScheduledTask", "catalog", {**_TASK, "trigger": _OFTEN}),
    Broken("requests", "TaskRun", "requests", {"task": "steady"}),
    Broken("engine", "ScheduledTask", "engine", {**_TASK, "trigger": _OFTEN}),
    Broken("views", "ScheduledTask", "views", {**_TASK, "trigger": _OFTEN}),
    Broken("comparison", "ScheduledTask", "sorting", {**_TASK, "trigger": _OFTEN}),
    Broken("projection", "ScheduledTask", "projection", {**_TASK, "trigger": _OFTEN}),
    Broken("projection", "WorkerPool", "projection-pool", {}),
    Broken("projection", "Calendar", "projection-calendar", _CALENDAR),
    Broken("history", "ScheduledTask", "history", {**_TASK, "trigger": _OFTEN}),
    Broken("pools", "WorkerPool", "pools", _TEMPLATE),
    Broken("autoscaling", "WorkerPool", "autoscaling", _SCALED),
)


@dataclass
class Scene:
    cluster: Access
    crew: Crew

    def stored(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = get(self.cluster, kind, NAMESPACE, name)
        return found

    def succeeded(self, name: str) -> int:
        return int(self.stored("ScheduledTask", name).get("status", {}).get("counters", {}).get("succeeded", 0))

    def stalled(self, kind: str, name: str) -> dict[str, Any]:
        """The condition while it is true, else nothing."""
        conditions = self.stored(kind, name).get("status", {}).get("conditions", ())
        return next((c for c in conditions if c["type"] == "Stalled" and c["status"] == "True"), {})

    def events(self, kind: str, name: str) -> list[dict[str, Any]]:
        listed = self.cluster.request("GET", f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")["items"]
        uid = self.stored(kind, name)["metadata"]["uid"]
        return [event for event in listed if event["regarding"].get("uid") == uid]

    def logs(self) -> str:
        return "\n".join(operator.log.read_text(errors="replace") for operator in self.crew.operators)


@pytest.fixture(scope="module")
def scene(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("isolation")
    records = folder / "records"
    records.mkdir()
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    account = service_account(NAMESPACE, "shop-worker")  # fmt: skip
    broken = customized(folder, hasty_operator.SITE + broken_operator.SITE)
    with Crew(cluster, folder, system=SYSTEM, namespace=NAMESPACE) as crew:
        apply(cluster, account, _object("WorkerPool", "shops", {"slots": 8, "silence": "120s"}))
        for name in ("replica-a", "replica-b"):
            crew.operator(name, **broken).wait_ready()
        environment = {"TICKWHEEL_TEST_RECORDS": str(records)}
        crew.worker("w-0", pool="shops", account="shop-worker", handlers=HANDLERS, environment=environment)
        scene = Scene(cluster, crew)
        apply(cluster, _object("ScheduledTask", "steady", {**_TASK, "trigger": _OFTEN}))
        until("the good task to succeed", lambda: scene.succeeded("steady") >= 2)
        apply(cluster, *(_object(broken.kind, broken.name, broken.spec) for broken in BROKEN))
        yield scene


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.layer}-{broken.kind}-{broken.name}")
def test_an_object_that_a_layer_fails_at_is_stalled_and_an_event_says_so(scene: Scene, broken: Broken) -> None:
    until(
        f"{broken.name} to be stalled, and to say which layer fails",
        lambda: f"({broken.layer}: Injected(" in scene.stalled(broken.kind, broken.name).get("message", ""),
    )
    for _ in range(5):  # it stays so: no other part of the operator says that all is well
        time.sleep(0.2)
        assert scene.stalled(broken.kind, broken.name).get("reason") == "InternalError"
    until(
        "an Event of it",
        lambda: any(event["reason"] == "InternalError" for event in scene.events(broken.kind, broken.name)),
    )
    line = f"{broken.layer}: failed at {broken.kind} {NAMESPACE}/{broken.name}; all others go on"
    told = scene.logs().count(line)
    assert 1 <= told <= len(scene.crew.operators), "once in the log of each replica that met it"
    figure = f'tickwheel_object_faults_total{{kind="{broken.kind}",layer="{broken.layer}"}}'
    assert sum(operator.metrics().get(figure, 0) for operator in scene.crew.operators) >= 1


def test_a_lease_that_cannot_be_sent_has_failed_and_its_worker_goes_on(scene: Scene) -> None:
    apply(scene.cluster, _object("ScheduledTask", "gateway", {**_TASK, "trigger": _OFTEN, "retry": {"limit": 0}}))
    until(
        "an Event of the run that failed",
        lambda: any("InternalError" in event["note"] for event in scene.events("ScheduledTask", "gateway")),
    )
    before = scene.succeeded("steady")
    until("the same worker to go on", lambda: scene.succeeded("steady") >= before + 3)


def test_all_others_go_on_in_the_same_processes(scene: Scene) -> None:
    for broken in BROKEN:
        until(f"{broken.name} to be stalled", lambda broken=broken: scene.stalled(broken.kind, broken.name))
    before = scene.succeeded("steady")
    apply(
        scene.cluster,
        _object("ScheduledTask", "later", {**_TASK, "trigger": _OFTEN}),
        _object("WorkerPool", "later", {}),
        _object("Calendar", "later", _CALENDAR),
        _object("TaskRun", "later", {"task": "steady"}),
    )
    until("the good task to go on", lambda: scene.succeeded("steady") >= before + 5)
    until("a new task to run", lambda: scene.succeeded("later") >= 2)
    for kind in ("WorkerPool", "Calendar"):
        until(f"a new {kind} to be seen", lambda kind=kind: scene.stored(kind, "later").get("status"))
    until(
        "a new TaskRun to end", lambda: scene.stored("TaskRun", "later").get("status", {}).get("state") == "Succeeded"
    )
    for operator in scene.crew.operators:
        assert operator.alive, operator.log_tail()
    # A machine that stands still for some seconds may depose the leader: another one follows.
    until("one to lead", lambda: sum(o.metrics()['tickwheel_leader{partition="0"}'] for o in scene.crew.operators) == 1)


def test_an_edit_of_a_task_that_the_engine_failed_at_tries_again_and_stalls_it_again(scene: Scene) -> None:
    until("it to be stalled", lambda: scene.stalled("ScheduledTask", "engine"))

    def change(task: dict[str, Any]) -> None:
        task["spec"]["history"] = {"succeeded": 1}

    edit(scene.cluster, "ScheduledTask", NAMESPACE, "engine", change)
    until(
        "the new generation to be stalled",
        lambda: scene.stalled("ScheduledTask", "engine").get("observedGeneration") == 2,
    )
    before = scene.succeeded("steady")
    until("the good task to go on", lambda: scene.succeeded("steady") >= before + 3)


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return custom_object(kind, NAMESPACE, name, spec)
