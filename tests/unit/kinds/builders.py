"""Objects as the watch sees them."""

from __future__ import annotations

from typing import Any

from tickwheel_operator.api import parse
from tickwheel_operator.api.calendar import Calendar
from tickwheel_operator.engine.sources import ByClock, Completion
from tickwheel_operator.engine.spec import CalendarUse, PoolSpec, TaskSpec
from tickwheel_operator.engine.triggers import CronTrigger
from tickwheel_operator.kinds.calendar import SeenCalendar, compile_calendar
from tickwheel_operator.kinds.scheduledtask import SeenTask
from tickwheel_operator.kinds.seen import Fault
from tickwheel_operator.kinds.stored import Stored
from tickwheel_operator.kinds.taskrun import RunRequest, SeenRun
from tickwheel_operator.kinds.workerpool import SeenPool

__all__ = ["a_calendar", "a_follower", "a_pool", "a_run", "a_task", "a_timed_task"]


def a_task(
    uid: str = "u-1", *, generation: int = 1, pool: str = "p", fault: Fault | None = None,
    compiled: dict[str, Any] | None = None, **more: Any,
) -> Any:  # fmt: skip
    """`compiled` are further fields of its spec."""
    name = more.pop("name", f"task-{uid}")
    spec = TaskSpec(
        uid=uid,
        namespace="ns",
        name=name,
        generation=generation,
        created_ms=0,
        pool=pool,
        handler="h",
        **(compiled or {}),
    )
    if "stored" in more:
        more["stored"] = Stored((), ready=more["stored"])
    return SeenTask(
        kind="ScheduledTask", uid=uid, namespace="ns", name=name, generation=generation, fault=fault,
        spec=None if fault else spec, **more,
    )  # fmt: skip


def a_timed_task(uid: str, *calendars: str, cron: str = "0 4 * * *", **more: Any) -> Any:
    """A task that does not fire on the dates of these calendars."""
    uses = tuple(CalendarUse(name) for name in calendars)
    return a_task(uid, compiled={"source": ByClock(CronTrigger(cron)), "calendars": uses}, **more)


def a_follower(name: str, after: str, **more: Any) -> Any:
    """A task of this name (its uid too) that runs when `after` has."""
    return a_task(name, name=name, compiled={"source": Completion(after)}, **more)


def a_calendar(
    name: str = "holidays", *, uid: str = "c-1", generation: int = 1, fault: Fault | None = None, **spec: Any
) -> SeenCalendar:
    manifest = parse(
        {
            "apiVersion": "tickwheel.io/v1alpha1", "kind": "Calendar", "metadata": {"name": name, "namespace": "ns"},
            "spec": spec or {"dates": ["2026-10-01"]},
        }
    )  # fmt: skip
    assert isinstance(manifest, Calendar)
    return SeenCalendar(
        kind="Calendar", uid=uid, namespace="ns", name=name, generation=generation, fault=fault,
        dates=None if fault else compile_calendar(manifest),
    )  # fmt: skip


def a_pool(name: str = "p", *, uid: str = "pool-1", silence_ms: int = 10_000, fault: Fault | None = None) -> Any:
    spec = None if fault else PoolSpec(namespace="ns", name=name, silence_ms=silence_ms)
    return SeenPool(
        kind="WorkerPool", uid=uid, namespace="ns", name=name, generation=1, spec=spec, accounts=frozenset({"sa"}),
        fault=fault,
    )  # fmt: skip


def a_run(uid: str = "r-1", *, cancel: bool = False, final: bool = False, run_id: str = "", key: str = "") -> SeenRun:
    request = RunRequest(task="t", key=key or f"taskrun/{uid}", scheduled_ms=None, parameters=b"", cancel=cancel)
    return SeenRun(
        kind="TaskRun", uid=uid, namespace="ns", name=f"run-{uid}", generation=1, request=None if final else request,
        final=final, run_id=run_id,
    )  # fmt: skip
