"""What is told of pods that do not become ready."""

from __future__ import annotations

from typing import Any

from tickwheel_operator.pools.pod_problems import creating, event_problem, pod_problem, unregistered


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
    found = pod_problem([a_pod(conditions=[condition])])
    assert found is not None
    assert found[0] == "Unschedulable"
    assert found[1].startswith("pod w: Unschedulable: 0/3 nodes: cpu; check resources.requests")


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


ENDED = {"exitCode": 2, "reason": "Error", "message": "tickwheel: there is no file /handlers/handlers.py\n"}
NOT_READY = [{"type": "Ready", "status": "False"}]
READY = [{"type": "Ready", "status": "True"}]


def test_a_worker_that_has_just_ended_or_runs_again_is_quoted_too() -> None:
    """A crash loop is seen at any moment of it, not only while kubelet backs off."""
    just_ended = [{"name": "worker", "restartCount": 1, "state": {"terminated": ENDED}}]
    again = [{"name": "worker", "restartCount": 3, "state": {"running": {}}, "lastState": {"terminated": ENDED}}]
    for containers in (just_ended, again):
        found = pod_problem([a_pod(conditions=NOT_READY, containerStatuses=containers)])
        assert found is not None
        assert found[0] == "ContainerEnded"
        assert "it ended with 2 (Error)" in found[1]
        assert "there is no file /handlers/handlers.py" in found[1]
    recovered = a_pod(conditions=READY, containerStatuses=[{**again[0], "ready": True}])
    assert pod_problem([recovered]) is None


def test_an_init_container_that_has_done_its_work_is_no_problem() -> None:
    done = [{"name": "init", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]
    assert pod_problem([a_pod(conditions=NOT_READY, initContainerStatuses=done)]) is None


def test_a_worker_that_had_too_little_memory_is_told_what_to_raise() -> None:
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    found = pod_problem([a_pod(containerStatuses=waiting("CrashLoopBackOff", lastState=killed))])
    assert found is not None
    assert found[0] == "OOMKilled"
    assert "raise resources.limits.memory" in found[1]


def test_what_the_gateway_refused_is_told_of_the_pod_of_that_address() -> None:
    containers = [{"name": "worker", "state": {"running": {}}, "ready": False}]
    pods = [a_pod(conditions=NOT_READY, containerStatuses=containers, podIP="10.1.2.3", podIPs=[{"ip": "10.1.2.3"}])]
    refusals = {"10.1.2.3": ("InvalidToken", "the token expired 5 s ago")}
    found = pod_problem(pods, lambda peers: next((refusals[peer] for peer in peers if peer in refusals), None))
    assert found is not None
    assert found[0] == "InvalidToken"
    assert "the gateway refuses its worker: InvalidToken: the token expired 5 s ago" in found[1]


def test_a_pod_whose_containers_are_being_created_is_explained_by_its_newest_warning() -> None:
    pod = a_pod(conditions=NOT_READY, containerStatuses=waiting("ContainerCreating"))
    assert creating([a_pod("runs", containerStatuses=[{"name": "worker", "state": {"running": {}}}]), pod]) is pod
    events = [
        {"type": "Warning", "reason": "FailedMount", "message": "old", "lastTimestamp": "2026-01-01"},
        {
            "type": "Warning",
            "reason": "FailedMount",
            "message": "configmap not found",
            "lastTimestamp": "2026-01-02",
        },
        {"type": "Warning", "reason": "Unhealthy", "message": "probe", "lastTimestamp": "2026-01-03"},
        {"type": "Normal", "reason": "Scheduled", "message": "assigned", "lastTimestamp": "2026-01-04"},
    ]
    found = event_problem(pod, events)
    assert found is not None
    assert found[0] == "FailedMount"
    assert found[1].startswith("pod w: configmap not found; create what it names")
    assert event_problem(pod, events[2:]) is None


def test_a_worker_that_runs_and_was_never_heard_of_is_told_with_where_to_look() -> None:
    running = [{"name": "worker", "state": {"running": {}}, "ready": False}]
    pod = a_pod(conditions=NOT_READY, containerStatuses=running)
    found = unregistered([pod], [])
    assert found is not None
    assert found[0] == "WorkerNotRegistered"
    assert "kubectl logs" in found[1]
    # Its worker is there: then it is a probe of the user's that fails.
    assert (unregistered([pod], ["w"]) or ("",))[0] == "ContainersNotReady"
    lost = a_pod(conditions=READY, containerStatuses=[{**running[0], "ready": True}])
    assert (unregistered([lost], []) or ("",))[0] == "WorkersNotConnected"
    assert unregistered([lost], ["w"]) is None
