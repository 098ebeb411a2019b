"""What is told of pods that do not become ready."""

from __future__ import annotations

from typing import Any

from tickwheel_operator.pools.pod_problems import pod_problem


def a_pod(name: str = "w", created: str = "2026-01-01T00:00:00Z", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "creationTimestamp": created}, "status": status}


def waiting(reason: str, message: str = "", **container: Any) -> list[dict[str, Any]]:
    return [{"name": "worker", "state": {"waiting": {"reason": reason, "message": message}}, **container}]


def test_a_worker_that_ends_at_once_is_quoted() -> None:
    ended = {"terminated": {"exitCode": 2, "reason": "Error", "message": "tickwheel: no handlers are registered\n"}}
    found = pod_problem([a_pod(containerStatuses=waiting("CrashLoopBackOff", "back-off 10s", lastState=ended))])
    assert found == (
        "CrashLoopBackOff",
        "pod w: container worker: CrashLoopBackOff: it ended with 2 (Error): tickwheel: no handlers are registered",
    )


def test_a_pod_that_has_no_place_is_told_in_the_schedulers_words() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: cpu"}
    assert pod_problem([a_pod(conditions=[condition])]) == ("Unschedulable", "pod w: Unschedulable: 0/3 nodes: cpu")


def test_an_init_container_is_told_of_too() -> None:
    found = pod_problem([a_pod(initContainerStatuses=waiting("ErrImagePull", "not found"))])
    assert found is not None
    assert found[0] == "ErrImagePull"


def test_pods_that_start_run_or_go_have_no_problem() -> None:
    going = a_pod(containerStatuses=waiting("ErrImagePull"))
    going["metadata"]["deletionTimestamp"] = "now"
    running = [{"name": "worker", "state": {"running": {}}}]
    pods = [a_pod(), a_pod(containerStatuses=waiting("ContainerCreating")), a_pod(containerStatuses=running), going]
    assert pod_problem(pods) is None


def test_the_newest_pod_that_has_one_speaks() -> None:
    old = a_pod("old", "2026-01-01T00:00:00Z", containerStatuses=waiting("CrashLoopBackOff"))
    new = a_pod("new", "2026-01-02T00:00:00Z", containerStatuses=waiting("ErrImagePull"))
    found = pod_problem([old, new, a_pod("newest", "2026-01-03T00:00:00Z")])
    assert found is not None
    assert found[0] == "ErrImagePull"
