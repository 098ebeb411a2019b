"""What the status of a WorkerPool says."""

from __future__ import annotations

from typing import Any

import pytest

from tickwheel_operator.api.workerpool import WorkerPool, WorkerPoolStatus
from tickwheel_operator.engine.read.views import PoolView
from tickwheel_operator.kinds.seen import Fault
from tickwheel_operator.kinds.workerpool import WORKER_POOL, SeenPool, pool_status
from tickwheel_operator.kinds.world import Workforce
from tickwheel_operator.pools.deployments import PoolDeployment, PoolProblem
from tickwheel_operator.pools.podmetrics import PoolUsage
from tickwheel_operator.projection.writing import changes, with_transition_times

NOW = "2026-01-01T00:00:00Z"


def a_pool(fault: tuple[str, str] | None = None) -> SeenPool:
    why = None if fault is None else Fault(*fault)
    return SeenPool(kind="WorkerPool", uid="u", namespace="ns", name="p", generation=3, fault=why)


def a_view(workers: int = 3, draining: int = 0, *, cpu: float = 0.25, backlog: int = 2) -> PoolView:
    slots = workers * 4
    return PoolView("ns", "p", workers, draining, slots, 1, backlog, cpu, 0.5, ["h"], slots - draining * 4 - 1)


def a_workforce(
    desired: int = 3,
    replicas: int = 3,
    ready: int = 3,
    updated: int = 3,
    problem: PoolProblem | None = None,
    **more: Any,
) -> Workforce:
    deployment = PoolDeployment(
        desired=desired, replicas=replicas, ready=ready, updated=updated, unavailable=replicas - ready, problem=problem
    )
    fields = {"deployment": deployment, "selector": "tickwheel.io/pool=p", "least": desired, **more}
    return Workforce(**fields)


def words(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Status and reason by the type of the condition."""
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


def message(status: dict[str, Any], kind: str) -> str:
    return str(next(c["message"] for c in status["conditions"] if c["type"] == kind))


def test_a_pool_with_all_its_workers_is_ready() -> None:
    usage = PoolUsage(123, 325_058_560, 3)
    status = pool_status(a_pool(), a_view(), a_workforce(usage=usage, scaling="backlog 2"))
    assert words(status) == {
        "Ready": ("True", "Ready"),
        "Reconciling": ("False", "Settled"),
        "Stalled": ("False", "Settled"),
    }
    assert message(status, "Ready") == "3 of 3 workers are ready"
    assert (status["desiredReplicas"], status["replicas"], status["readyReplicas"]) == (3, 3, 3)
    assert status["slots"] == {"total": 12, "used": 1, "free": 11}
    assert status["load"] == {"cpu": "25%", "memory": "50%"}
    assert status["usage"] == {"cpu": "120m", "memory": "310Mi", "pods": 3}
    assert status["scaling"] == "backlog 2"
    assert status["selector"] == "tickwheel.io/pool=p"


def test_workers_that_are_still_missing_are_counted() -> None:
    status = pool_status(a_pool(), a_view(2), a_workforce(ready=2))
    assert words(status)["Ready"] == ("False", "WorkersNotReady")
    assert words(status)["Reconciling"] == ("True", "Scaling")
    assert message(status, "Reconciling") == "2 of 3 workers are ready"


def test_a_rolling_update_leaves_the_pool_ready_and_says_how_far_it_is() -> None:
    status = pool_status(a_pool(), a_view(4), a_workforce(replicas=4, ready=4, updated=1))
    assert words(status)["Ready"][0] == "True"
    assert words(status)["Reconciling"] == ("True", "RollingUpdate")
    assert message(status, "Reconciling") == "1 of 3 workers have the present template"


def test_workers_that_go_are_told() -> None:
    status = pool_status(a_pool(), a_view(5), a_workforce(desired=3, replicas=5, ready=5, updated=5))
    assert message(status, "Ready") == "3 of 3 workers are ready"
    assert message(status, "Reconciling") == "3 of 3 workers are ready; 2 more go"


def test_what_keeps_pods_from_starting_is_told_and_stalls_only_where_somebody_must_mend_it() -> None:
    pull = PoolProblem("ImagePullBackOff", "pod p-1: no such image", False)
    status = pool_status(a_pool(), a_view(2), a_workforce(ready=2, problem=pull))
    assert words(status)["Reconciling"] == ("True", "ImagePullBackOff")
    assert message(status, "Reconciling") == "2 of 3 workers are ready: pod p-1: no such image"
    quota = PoolProblem("FailedCreate", "exceeded quota", True)
    status = pool_status(a_pool(), a_view(3), a_workforce(problem=quota))
    assert words(status) == {
        "Ready": ("False", "FailedCreate"),
        "Reconciling": ("False", "Settled"),
        "Stalled": ("True", "FailedCreate"),
    }


def test_pods_that_run_and_do_not_connect_are_no_workers() -> None:
    status = pool_status(a_pool(), a_view(1), a_workforce())
    assert words(status)["Ready"][0] == "False"
    assert words(status)["Reconciling"] == ("True", "WorkersNotConnected")
    assert status["readyReplicas"] == 1


def test_workers_that_drain_do_not_count_as_ready() -> None:
    status = pool_status(a_pool(), a_view(4, 1), a_workforce())
    assert (status["readyReplicas"], status["draining"]) == (3, 1)
    assert words(status)["Reconciling"] == ("False", "Settled")


def test_a_pool_that_needs_nobody_is_ready_without_workers() -> None:
    status = pool_status(a_pool(), None, a_workforce(0, 0, 0, 0))
    assert words(status)["Ready"] == ("True", "Ready")
    assert message(status, "Ready") == "no workers are asked for"


def test_an_autoscaled_pool_that_grows_stays_ready() -> None:
    status = pool_status(a_pool(), a_view(1), a_workforce(desired=8, replicas=8, ready=1, updated=8, least=1))
    assert words(status)["Ready"] == ("True", "Ready")
    assert words(status)["Reconciling"] == ("True", "Scaling")


def test_the_workers_of_an_external_pool_are_those_that_are_connected() -> None:
    status = pool_status(a_pool(), a_view(3, 1))
    assert (status["replicas"], status["readyReplicas"], status["desiredReplicas"]) == (3, 2, None)
    assert words(status)["Ready"] == ("True", "Accepted")


def test_an_invalid_pool_is_stalled_whatever_its_pods_do() -> None:
    status = pool_status(a_pool(("InvalidSpec", "spec.x: no")), a_view(), None)
    assert words(status)["Stalled"] == ("True", "InvalidSpec")


def test_a_load_that_trembles_is_not_written_again() -> None:
    before = pool_status(a_pool(), a_view(cpu=0.50), a_workforce(usage=PoolUsage(121, 0, 3)))
    stored = WORKER_POOL.stored({k: v for k, v in with_transition_times(before, NOW).items() if v is not None})
    after = pool_status(a_pool(), a_view(cpu=0.52), a_workforce(usage=PoolUsage(124, 0, 3)))
    assert changes("WorkerPool", after, stored) == {}
    assert set(changes("WorkerPool", pool_status(a_pool(), a_view(backlog=3), a_workforce()), stored)) == set(
        WORKER_POOL.sections[1]
    )


@pytest.mark.parametrize("workforce", [None, a_workforce(usage=PoolUsage(1, 1, 1), scaling="idle"), a_workforce(0)])
@pytest.mark.parametrize("view", [None, a_view()])
def test_every_status_fits_the_schema_and_all_of_it_is_compared(
    workforce: Workforce | None, view: PoolView | None
) -> None:
    status = pool_status(a_pool(), view, workforce)
    body = {name: value for name, value in with_transition_times(status, NOW).items() if value is not None}
    WorkerPoolStatus.model_validate(body)
    assert set(status) == {name for section in WORKER_POOL.sections for name in section}


def test_the_scale_subresource_reads_what_the_status_has() -> None:
    scale = WorkerPool.presentation.scale
    assert scale is not None
    status = pool_status(a_pool(), a_view(), a_workforce())
    assert scale.status_path.removeprefix(".status.") in status
    assert scale.selector_path.removeprefix(".status.") in status
