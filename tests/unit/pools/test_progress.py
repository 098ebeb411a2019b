"""When a pool that is not as it should be is stalled, and when it no longer is."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.pools.builders import NAMESPACE, a_pool
from tests.unit.pools.memory_cluster import MemoryCluster

from tickwheel_operator.pools import progress
from tickwheel_operator.pools.deployments import ObservedDeployment, PoolProblem
from tickwheel_operator.pools.progress import Progress

KEY = (NAMESPACE, "shop")


class Scene:
    """A pool of two workers with a deadline of a minute, and a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **spec: Any) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(progress, "_now", lambda: self.now)
        self.cluster = MemoryCluster()
        self.connected: list[str] | None = None
        self.pool = a_pool(replicas=2, progressDeadline="60s", **spec)
        self.progress = self.another_leaders()

    def another_leaders(self) -> Progress:
        return Progress(
            self.cluster, first_s=10, most_s=60, connected=lambda *_: self.connected, wall_s=lambda: self.now + 5_000
        )

    def crashes(self) -> None:
        ended = {"terminated": {"exitCode": 2, "reason": "Error", "message": "no handlers"}}
        waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
        self.cluster.pod_objects = [
            {
                "metadata": {"name": "w-1", "namespace": NAMESPACE},
                "status": {"containerStatuses": [{"name": "worker", "state": waiting, "lastState": ended}]},
            }
        ]

    async def look(self, after_s: float = 0.0, **status: Any) -> PoolProblem | None:
        self.now += after_s
        problem, _ = await self.progress.look(KEY, self.pool, 2, observed(**status))
        return problem


def observed(*, ready: int = 2, updated: int = 2, available: int | None = None, since: float = 0) -> ObservedDeployment:
    return ObservedDeployment(
        uid="d", namespace=NAMESPACE, name="shop-workers", pool="shop", owner="uid-1", ours="x", generation=1,
        settled_generation=1, deleting=False, desired=2, replicas=2, ready=ready, updated=updated,
        unavailable=2 - (ready if available is None else available), unavailable_since=since, failure=None,
    )  # fmt: skip


async def test_a_crash_loop_after_a_finished_rollout_is_told_then_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.crashes()
    assert await scene.look(ready=1) is None
    told = await scene.look(10, ready=1)
    assert told is not None
    assert (told.reason, told.stalled) == ("CrashLoopBackOff", False)
    stalled = await scene.look(51, ready=1)
    assert stalled is not None
    assert (stalled.reason, stalled.stalled) == ("CrashLoopBackOff", True)
    words = "1 of 2 workers are ready, no progress for 60s (spec.progressDeadline): pod w-1: "
    assert stalled.message.startswith(words)
    assert "no handlers" in stalled.message


async def test_progress_begins_the_deadline_again_and_a_crash_loop_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.crashes()
    await scene.look(ready=0)
    grown = await scene.look(50, ready=1)
    assert grown is None or not grown.stalled
    still = await scene.look(50, ready=1)
    assert still is None or not still.stalled
    # Up and down without ever being up for long enough.
    for _ in range(6):
        await scene.look(5, ready=0)
        await scene.look(5, ready=2, available=1)
    problem = await scene.look(55, ready=1)
    assert problem is not None
    assert problem.stalled
    # Ready, and not for long enough to count: it may be the same again.
    problem = await scene.look(3, ready=2, available=1)
    assert problem is not None
    assert problem.stalled
    assert await scene.look(10) is None


async def test_an_edit_of_the_pool_begins_the_deadline_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.crashes()
    await scene.look(ready=1)
    problem = await scene.look(61, ready=1)
    assert problem is not None
    assert problem.stalled
    metadata = scene.pool.metadata.model_copy(update={"generation": 2})
    scene.pool = scene.pool.model_copy(update={"metadata": metadata})
    problem = await scene.look(1, ready=1)
    assert problem is None or not problem.stalled


async def test_another_leader_counts_from_when_the_deployment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.crashes()
    wall = scene.now + 5_000
    problem = await scene.look(ready=1, since=wall - 120)
    assert problem is not None
    assert (problem.reason, problem.stalled) == ("CrashLoopBackOff", True)


async def test_pods_that_say_nothing_stall_with_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    await scene.look(ready=1)
    problem = await scene.look(61, ready=1)
    assert problem is not None
    assert (problem.reason, problem.stalled) == ("ProgressDeadlineExceeded", True)
    assert "kubectl describe pods -n shops -l tickwheel.io/pool=shop" in problem.message


async def test_ready_pods_whose_workers_lost_the_gateway_stall_too(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    running = [{"name": "worker", "state": {"running": {}}, "ready": True}]
    scene.cluster.pod_objects = [
        {"metadata": {"name": name, "namespace": NAMESPACE}, "status": {**status, "containerStatuses": running}}
        for name in ("w-1", "w-2")
    ]
    scene.connected = ["w-1", "w-2"]
    assert await scene.look() is None
    scene.connected = ["w-2"]
    assert await scene.look() is None
    problem = await scene.look(10)
    assert problem is not None
    assert (problem.reason, problem.stalled) == ("WorkersNotConnected", False)
    problem = await scene.look(51)
    assert problem is not None
    assert problem.stalled
    assert "pod w-1" in problem.message
    scene.connected = ["w-1", "w-2"]
    assert await scene.look() is None
