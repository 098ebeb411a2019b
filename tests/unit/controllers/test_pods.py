"""Worker pods that come and go, and a leader who hears of it late."""

from __future__ import annotations

from typing import Any

from tickwheel_operator.controllers.pods import PodWatch
from tickwheel_operator.engine.messages import WorkerGone


def a_pod(name: str, *, ready: bool = True, phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {"uid": f"uid-{name}", "namespace": "shops", "name": name, "labels": {"tickwheel.io/pool": "p"}},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]},
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


def test_a_pod_that_was_never_ready_says_nothing():
    watched = Watched()
    watched.see(a_pod("a", ready=False))
    assert watched.heard == []


def test_a_worker_whose_pod_is_deleted_fails_or_loses_readiness_is_lost():
    watched = Watched()
    for name in "abc":
        watched.see(a_pod(name))
    watched.see(a_pod("a"), deleted=True)
    watched.see(a_pod("b", ready=False))
    watched.see(a_pod("c", ready=False, phase="Failed"))
    assert watched.heard == ["a", "b", "c"]


def test_a_new_leader_hears_of_the_workers_that_were_lost_before_its_term_and_did_not_come_back():
    watched = Watched()
    for name in "abc":
        watched.see(a_pod(name))
    watched.see(a_pod("a"), deleted=True)
    watched.see(a_pod("b", ready=False))
    watched.see(a_pod("b"))
    watched.heard.clear()
    watched.pods.lead()
    assert watched.heard == ["a"]
