"""Argo CD's Lua and Flux's CEL on the statuses that the operator writes: both say the same, and what is so."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from gitops.build import HERE, KIND_NAMES, RUNS, files
from tests.unit.gitops.judges import argocd, flux
from tests.unit.kinds.test_statuses import a_pool, a_run, a_task, a_view

from tickwheel_operator.api.taskrun import TaskRun
from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.kinds import KINDS
from tickwheel_operator.kinds.calendar import CALENDAR, SeenCalendar
from tickwheel_operator.kinds.scheduledtask import task_status
from tickwheel_operator.kinds.seen import Fault
from tickwheel_operator.kinds.taskrun import request_status, run_status
from tickwheel_operator.kinds.workerpool import SeenPool, pool_status
from tickwheel_operator.kinds.world import Workforce
from tickwheel_operator.pools.deployments import PoolDeployment, PoolProblem

_FAULT = Fault("InvalidSpec", "spec.trigger.cron: no")
_SEEN = SimpleNamespace(uid="u", generation=2)


def pool(fault: Fault | None = None) -> SeenPool:
    return SeenPool(kind="WorkerPool", uid="u", namespace="ns", name="p", generation=2, fault=fault)


def calendar(fault: Fault | None = None) -> SeenCalendar:
    return SeenCalendar(kind="Calendar", uid="u", namespace="ns", name="c", generation=2, fault=fault)


def deployment(ready: int, problem: PoolProblem | None = None) -> PoolDeployment:
    return PoolDeployment(desired=1, replicas=1, ready=ready, updated=1, unavailable=1 - ready, problem=problem)


def pods(seen: PoolDeployment | None) -> Workforce:
    return Workforce(deployment=seen, selector="tickwheel.io/pool=p", least=1)


def request(fault: Any, state: RunState | None) -> Any:
    return SimpleNamespace(seen=_SEEN, fault=fault, run_id="u.1", state=state)


def refused(kind: str) -> dict[str, Any]:
    seen = KINDS[kind].observe({"metadata": {"uid": "u", "namespace": "ns", "name": "x", "generation": 2}})
    status: dict[str, Any] = KINDS[kind].judged(seen)
    return status


NOTHING: dict[str, Any] = {}
CASES: dict[str, tuple[str, dict[str, Any] | None, str, str]] = {
    "new task": ("ScheduledTask", None, "Progressing", "InProgress"),
    "armed": ("ScheduledTask", task_status(a_task(), a_view(), a_pool("h")), "Healthy", "Current"),
    "armed, pool not heard of": ("ScheduledTask", task_status(a_task(), a_view(), None), "Healthy", "Current"),
    "manual": ("ScheduledTask", task_status(a_task(), None, a_pool("h")), "Healthy", "Current"),
    "suspended": ("ScheduledTask", task_status(a_task(suspend=True), a_view(), a_pool("h")), "Suspended", "Current"),
    "stalled": (
        "ScheduledTask", task_status(a_task(("InvalidSpec", "spec.x: no")), a_view(), None), "Degraded", "Failed",
    ),
    "no such handler": ("ScheduledTask", task_status(a_task(), a_view(), a_pool("other")), "Degraded", "Failed"),
    "edited": (
        "ScheduledTask", {**task_status(a_task(), a_view(), a_pool("h")), "observedGeneration": 1},
        "Progressing", "InProgress",
    ),
    "new pool": ("WorkerPool", NOTHING, "Progressing", "InProgress"),
    "pool": ("WorkerPool", pool_status(pool(), a_pool("h")), "Healthy", "Current"),
    "pool with pods, not looked at": ("WorkerPool", pool_status(pool(), None, pods(None)), "Progressing", "InProgress"),
    "pool with pods": ("WorkerPool", pool_status(pool(), a_pool("h"), pods(deployment(1))), "Healthy", "Current"),
    "pool rolling out": (
        "WorkerPool", pool_status(pool(), a_pool("h"), pods(deployment(0))), "Progressing", "InProgress",
    ),
    "pool without its image": (
        "WorkerPool",
        pool_status(pool(), None, pods(deployment(0, PoolProblem("ImagePullBackOff", "no such image", stalled=True)))),
        "Degraded", "Failed",
    ),
    "stalled pool": ("WorkerPool", pool_status(pool(_FAULT), None), "Degraded", "Failed"),
    "new calendar": ("Calendar", None, "Progressing", "InProgress"),
    "calendar": ("Calendar", CALENDAR.judged(calendar()), "Healthy", "Current"),
    "stalled calendar": ("Calendar", CALENDAR.judged(calendar(_FAULT)), "Degraded", "Failed"),
    "new run": ("TaskRun", None, "Progressing", "InProgress"),
    "waiting run": ("TaskRun", run_status(a_run(RunState.PENDING, started_ms=0), 2), "Progressing", "InProgress"),
    "running": ("TaskRun", run_status(a_run(RunState.RUNNING), 2), "Progressing", "InProgress"),
    "succeeded": ("TaskRun", run_status(a_run(), 2), "Healthy", "Current"),
    "succeeded, then cancelled in vain": ("TaskRun", run_status(a_run(), 1), "Healthy", "Current"),
    "failed": ("TaskRun", run_status(a_run(RunState.FAILED, message="no"), 2), "Degraded", "Failed"),
    "cancelled": ("TaskRun", run_status(a_run(RunState.CANCELLED), 2), "Degraded", "Failed"),
    "refused run": ("TaskRun", request_status(request(_FAULT, None)), "Degraded", "Failed"),
    "run of long ago": ("TaskRun", request_status(request(None, RunState.SUCCEEDED)), "Healthy", "Current"),
    **{
        f"refused {kind}": (kind, refused(kind), "Degraded", "Failed")
        for kind in ("Workflow", "WorkflowRun", "AlertChannel")
    },
}  # fmt: skip


def stored(kind: str, status: dict[str, Any] | None) -> dict[str, Any]:
    """The object as the API server would show it; None: the operator has not written yet."""
    document: dict[str, Any] = {"apiVersion": "tickwheel.io/v1alpha1", "kind": kind}
    document |= {"metadata": {"name": "x", "generation": 2}, "spec": {}}
    if status is not None:
        document["status"] = {name: value for name, value in status.items() if value is not None}
    return document


@pytest.mark.parametrize(("kind", "status", "health", "verdict"), CASES.values(), ids=CASES)
def test_both_tools_know_from_the_conditions_how_an_object_is(
    kind: str, status: dict[str, Any] | None, health: str, verdict: str
) -> None:
    document = stored(kind, status)
    word, message = argocd(document)
    assert word == health
    assert message
    assert flux(document) == verdict


def test_argocd_shows_the_words_of_the_condition() -> None:
    status = task_status(a_task(("InvalidSpec", "spec.x: no")), a_view(), None)
    assert argocd(stored("ScheduledTask", status)) == ("Degraded", "spec.x: no")
    assert argocd(stored("TaskRun", run_status(a_run(RunState.FAILED, message="sold out"), 2)))[1] == "sold out"


def test_a_task_or_pool_that_is_on_its_way_is_progressing() -> None:
    conditions = [
        {"type": "Ready", "status": "False", "reason": "RollingOut", "message": "1 of 3 workers"},
        {"type": "Reconciling", "status": "True", "reason": "RollingOut", "message": "1 of 3 workers"},
        {"type": "Stalled", "status": "False", "reason": "Settled", "message": ""},
    ]
    document = stored("WorkerPool", {"observedGeneration": 2, "conditions": conditions})
    assert argocd(document) == ("Progressing", "1 of 3 workers")
    assert flux(document) == "InProgress"


def test_the_generated_files_are_those_of_the_scripts() -> None:
    for path, text in files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `python gitops/build.py`"


def test_argocd_is_configured_for_every_kind_that_people_write() -> None:
    patch = yaml.safe_load((HERE / "argocd" / "argocd-cm.yaml").read_text(encoding="utf-8"))
    assert list(patch["data"]) == [f"resource.customizations.health.tickwheel.io_{kind}" for kind in KIND_NAMES]
    for script in patch["data"].values():
        assert argocd(stored("ScheduledTask", CASES["armed"][1]), script)[0] == "Healthy"


def test_flux_is_configured_for_every_kind_that_people_write() -> None:
    kustomization = yaml.safe_load((HERE / "flux" / "kustomization.yaml").read_text(encoding="utf-8"))
    assert [each["kind"] for each in kustomization["spec"]["healthCheckExprs"]] == KIND_NAMES


def test_runs_are_told_from_other_kinds_by_their_name() -> None:
    assert TaskRun.kind_name() in RUNS
    assert [kind for kind in KIND_NAMES if re.search("Run$", kind)] == list(RUNS)
