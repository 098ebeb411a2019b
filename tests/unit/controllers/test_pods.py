"""Worker pods that come and go, and a leader who hears of it late."""

from __future__ import annotations

from typing import Any

from tickwheel_operator.controllers.pods import PodWatch
from tickwheel_operator.engine.messages import WorkerGone, WorkerKey


def a_pod(
    name: str,
    *,
    ended: str = "",
    running: bool = True,
    ready: bool = True,
    phase: str = "Running",
    finished: int = 20,
    started: int = 21,
) -> dict[str, Any]:
    """A pod with a sidecar before its worker, whose container `ended` is its last one or, not running, its present."""
    finished_at, started_at = (f"1970-01-01T00:00:{second:02d}Z" for second in (finished, started))
    terminated = {"terminated": {"containerID": ended, "finishedAt": finished_at}} if ended else {}
    worker = {
        "name": "worker",
        "state": {"running": {"startedAt": started_at}} if running else terminated,
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
        self.last = WorkerGone(key=WorkerKey("", "", ""))
        self.pods = PodWatch(self._post)

    def see(self, raw: dict[str, Any], *, deleted: bool = False) -> None:
        self.pods.seen(self.pods.read(raw, deleted=deleted))

    def _post(self, gone: WorkerGone) -> None:
        self.heard.append(gone.key.name)
        self.last = gone


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


def test_an_end_says_which_processes_it_is_of():
    watched = Watched()
    for name in "abc":
        watched.see(a_pod(name))
    watched.see(a_pod("a", ended="1", running=False))
    assert (watched.last.pod_uid, watched.last.before_ms) == ("uid-a", 20_000), "when it finished"
    watched.see(a_pod("b", ended="1", started=23))
    assert (watched.last.pod_uid, watched.last.before_ms) == ("uid-b", 23_000), "when the present one started"
    watched.see(a_pod("c"), deleted=True)
    assert (watched.last.pod_uid, watched.last.before_ms) == ("uid-c", 0), "all that were in the pod"
