"""Observed objects for the tests of this folder."""

from __future__ import annotations

from typing import Any

from tickwheel_operator.controllers.observe import Fault, ObservedPool, ObservedRun, ObservedTask, RunRequest
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec

__all__ = ["a_pool", "a_run", "a_task"]


def a_task(uid: str = "u-1", *, generation: int = 1, pool: str = "p", fault: Fault | None = None, **more: Any) -> Any:
    name = more.pop("name", f"task-{uid}")
    spec = TaskSpec(
        uid=uid, namespace="ns", name=name, generation=generation, created_ms=0, trigger=None, pool=pool,
        handler="h",
    )  # fmt: skip
    fields = {"deleting": False, "stored": None, **more}
    return ObservedTask(
        uid=uid, namespace="ns", name=name, generation=generation, spec=None if fault else spec, fault=fault, **fields
    )


def a_pool(name: str = "p", *, uid: str = "pool-1", silence_ms: int = 10_000, fault: Fault | None = None) -> Any:
    spec = None if fault else PoolSpec(namespace="ns", name=name, silence_ms=silence_ms)
    return ObservedPool(
        uid=uid, namespace="ns", name=name, generation=1, spec=spec, accounts=frozenset({"sa"}), fault=fault,
        stored=None,
    )  # fmt: skip


def a_run(uid: str = "r-1", *, cancel: bool = False, final: bool = False, run_id: str = "") -> ObservedRun:
    request = RunRequest(task="t", key=f"taskrun/{uid}", scheduled_ms=None, parameters=b"", cancel=cancel)
    return ObservedRun(
        uid=uid, namespace="ns", name=f"run-{uid}", generation=1, request=None if final else request, fault=None,
        final=final, run_id=run_id, stored=None,
    )  # fmt: skip
