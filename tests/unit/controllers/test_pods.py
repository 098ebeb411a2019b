"""Worker pods that come and go, and a leader who hears of it late."""

from __future__ import annotations

from typing import Any

from tickwheel_operator.controllers.pods import PodWatch
from tickwheel_operator.engine.messages import WorkerGone


def a_pod(
    name: str, *, ended: str = "", running: bool = True, ready: bool = True, phase: str = "Running"
) -> dict[str, Any]:
    """A pod with a sidecar before its worker, whose container `ended` is its last one or, not running, its present."""
    terminated = {"terminated": {"containerID": ended}} if ended else {}
    worker = {
        "name": "worker",
        "state": {"running": {}} if running else terminated,
        "lastState": terminated if running else {},
    }
    sidecar = {"name": "a-sidecar", "state": {"running": {}} if ready else {"terminated": {"containerID": "s"}}}
    return {
        "metadata": {"uid": f"uid-{name}", "namespace": "shops", "name": name, "labels": {"tickwheel.io/pool": "p"}},
        "spec": {"containers": [{"name": "a-sidecar"}, {"name": "worker"}]},
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [sidecar, worker],
        },
    }


class Watched:
    """A replica's watch, and what its engine hears while it leads."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.pods = PodWatch(self._post)

    def see(self, raw: dict[str, Any], *, deleted: bool = False) -> None:
        self.pods.seen(self.pods.read(raw, deleted=deleted))

    def _post(self, gone: WorkerGone) -> None:
        self.heard.append(gone.key.name)


def test_a_pod_that_is_not_ready_says_nothing_while_its_worker_runs():
    watched = Watched()
    watched.see(a_pod("a", ready=False))
    watched.see(a_pod("a"))
    watched.see(a_pod("a", ready=False))
    assert watched.heard == []


def test_a_worker_whose_pod_is_deleted_or_failed_or_whose_container_ended_is_lost():
    watched = Watched()
    for name in "abcd":
        watched.see(a_pod(name))
    watched.see(a_pod("a"), deleted=True)
    watched.see(a_pod("b", ended="1", running=False))
    watched.see(a_pod("c", phase="Failed", running=False))
    watched.see(a_pod("d", ended="1"))  # it ended and is back before anybody saw it
    assert watched.heard == ["a", "b", "c", "d"]
    watched.see(a_pod("b", ended="1"))
    watched.see(a_pod("d", ended="1"))
    assert watched.heard == ["a", "b", "c", "d"], "an end counts once"


def test_a_worker_that_had_restarted_before_this_replica_looked_is_not_lost():
    watched = Watched()
    watched.see(a_pod("a", ended="1"))
    watched.see(a_pod("b", ended="1", running=False))
    assert watched.heard == ["b"]


def test_a_new_leader_hears_of_the_workers_that_were_lost_before_its_term_and_did_not_come_back():
    watched = Watched()
    for name in "abc":
        watched.see(a_pod(name))
    watched.see(a_pod("a"), deleted=True)
    watched.see(a_pod("b", ended="1", running=False))
    watched.see(a_pod("b", ended="1"))
    watched.heard.clear()
    watched.pods.lead()
    assert watched.heard == ["a"]
