"""A pool without a worker says why, on a real API server: by its conditions and an Event. The tests write what kubelet
and the controllers would; tests/e2e/test_rollouts.py has the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.integration.installation import apply, create_namespace, edit, get, install_operator, service_account
from tests.integration.processes import Crew, WorkerProcess
from tests.integration.soak.scenario import until

NAMESPACE = "problems-shop"
SYSTEM = "problems-system"
LONG_AGO = "2026-01-01T00:00:00Z"
SAID = "tickwheel: there is no file /handlers/handlers.py"
HANDLERS = """
from tickwheel import task

@task("quick")
def quick(ctx): ...
"""


@pytest.fixture(scope="module")
def crew(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """A namespace that an operator serves, with a pool for each test: they become stalled together, after 30 s."""
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    account = service_account(NAMESPACE, "default")
    apply(cluster, account)
    with Crew(cluster, tmp_path_factory.mktemp("problems"), system=SYSTEM, namespace=NAMESPACE) as crew:
        crew.operator("leader", TICKWHEEL_GATEWAY_SERVICE_URL=crew.service.url).wait_ready()
        with a_refused_worker(crew):
            a_pool_whose_config_map_is_missing(crew)
            ended = {"exitCode": 2, "reason": "Error", "message": SAID}
            a_pool_without_a_worker(crew, "no-file", containers({"terminated": ended}))
            running = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
            a_pool_without_a_worker(crew, "refused", {**containers({"running": {}}), **running})
            yield crew


def a_pool_without_a_worker(crew: Crew, name: str, pod_status: dict[str, Any]) -> dict[str, Any]:
    """A pool whose only pod is like this, and whose Deployment has been unavailable for long; the pod."""
    template = {"spec": {"containers": [{"name": "worker", "image": "shop:1"}]}}
    metadata = {"name": name, "namespace": NAMESPACE}
    spec = {"template": template, "progressDeadline": "30s"}
    api = {"apiVersion": "tickwheel.io/v1alpha1", "kind": "WorkerPool"}
    apply(crew.cluster, {**api, "metadata": metadata, "spec": spec})
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
    until("the Deployment", lambda: f"{name}-workers" in [d["metadata"]["name"] for d in items(crew, path)])
    deployment = crew.cluster.request("GET", f"{path}/{name}-workers")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    pod = a_pod(crew, f"{name}-workers-1", labels, pod_status)
    unavailable = {"type": "Available", "status": "False", "lastTransitionTime": LONG_AGO}
    deployment["status"] = {
        "observedGeneration": deployment["metadata"]["generation"], "replicas": 1, "updatedReplicas": 1,
        "unavailableReplicas": 1, "conditions": [unavailable],
    }  # fmt: skip
    crew.cluster.request("PUT", f"{path}/{name}-workers/status", deployment)
    return pod


def a_pod(crew: Crew, name: str, labels: dict[str, str], status: dict[str, Any]) -> dict[str, Any]:
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    spec = {"serviceAccountName": "default", "containers": [{"name": "worker", "image": "shop:1"}]}
    pod = crew.cluster.request("POST", path, {"metadata": {"name": name, "labels": labels}, "spec": spec})
    conditions = [{"type": "Ready", "status": "False"}]
    pod["status"] = {"phase": "Pending", "conditions": conditions, **status}
    made: dict[str, Any] = crew.cluster.request("PUT", f"{path}/{name}/status", pod)
    return made


def containers(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    container = {"name": "worker", "image": "shop:1", "imageID": "", "ready": False, "restartCount": 0}
    return {"containerStatuses": [{**container, "state": state, **more}]}


def items(crew: Crew, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = crew.cluster.request("GET", path)["items"]
    return found


def until_stalled(crew: Crew, name: str, reason: str) -> str:
    """The condition's message, once the pool is stalled for the reason, and an Event says so too."""
    condition: dict[str, Any] = {}

    def is_stalled() -> bool:
        status = get(crew.cluster, "WorkerPool", NAMESPACE, name).get("status", {})
        condition.update(next((c for c in status.get("conditions", ()) if c["type"] == "Stalled"), {}))
        return (condition.get("status"), condition.get("reason")) == ("True", reason)

    until(f"{name} to be stalled: {reason}", is_stalled)

    def is_told() -> bool:
        events = items(crew, f"/api/v1/namespaces/{NAMESPACE}/events")
        about = [
            e for e in events if (e["involvedObject"]["kind"], e["involvedObject"]["name"]) == ("WorkerPool", name)
        ]
        return any(e["type"] == "Warning" and e["reason"] == reason for e in about)

    until("a Warning Event", is_told)
    return str(condition["message"])


def a_pool_whose_config_map_is_missing(crew: Crew) -> None:
    creating = containers({"waiting": {"reason": "ContainerCreating"}})
    pod = a_pool_without_a_worker(crew, "no-config-map", creating)
    metadata = pod["metadata"]
    crew.cluster.request(
        "POST",
        f"/api/v1/namespaces/{NAMESPACE}/events",
        {
            "metadata": {"name": "failed-mount", "namespace": NAMESPACE},
            "involvedObject": {"kind": "Pod", "name": metadata["name"], "namespace": NAMESPACE, "uid": metadata["uid"]},
            "type": "Warning",
            "reason": "FailedMount",
            "message": 'MountVolume.SetUp failed for volume "handlers" : configmap "handlers" not found',
            "lastTimestamp": LONG_AGO,
        },
    )


def a_refused_worker(crew: Crew) -> WorkerProcess:
    """Of the pool `refused`: its token is none."""
    handlers = crew.folder / "handlers.py"
    handlers.write_text(HANDLERS)
    return WorkerProcess(
        crew.operators[0].url, crew.folder, "refused-workers-1", namespace=NAMESPACE, pool="refused", token="nonsense",
        handlers=handlers,
    )  # fmt: skip


def test_a_pod_that_waits_for_a_config_map_that_is_missing_is_told_by_its_event(crew: Crew) -> None:
    message = until_stalled(crew, "no-config-map", "FailedMount")
    assert 'configmap "handlers" not found' in message
    assert "create what it names" in message


def test_a_worker_that_has_just_ended_is_quoted_and_the_pool_is_told_when_it_is_over(crew: Crew) -> None:
    message = until_stalled(crew, "no-file", "ContainerEnded")
    assert SAID in message
    edit(crew.cluster, "WorkerPool", NAMESPACE, "no-file", lambda pool: pool["spec"].update(replicas=0))

    def is_over() -> bool:
        events = items(crew, f"/api/v1/namespaces/{NAMESPACE}/events")
        return any((e["involvedObject"]["name"], e["reason"]) == ("no-file", "Settled") for e in events)

    def settle(deployment: dict[str, Any]) -> None:
        deployment["status"] = {"observedGeneration": deployment["metadata"]["generation"]}

    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/no-file-workers"
    until("no workers to be asked for", lambda: crew.cluster.request("GET", path)["spec"]["replicas"] == 0)
    deployment = crew.cluster.request("GET", path)
    settle(deployment)
    crew.cluster.request("PUT", f"{path}/status", deployment)
    until("an Event that it is over", is_over)


def test_what_the_gateway_refused_is_the_reason(crew: Crew) -> None:
    message = until_stalled(crew, "refused", "InvalidToken")
    assert "the gateway refuses its worker: InvalidToken" in message
    assert "docs/security.md" in message
