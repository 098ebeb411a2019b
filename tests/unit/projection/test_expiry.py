"""Which TaskRuns of people are deleted, and when."""

from __future__ import annotations

from typing import Any

from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.kinds.objects import Objects
from tickwheel_operator.kinds.scheduledtask import SeenTask
from tickwheel_operator.kinds.taskrun import SeenRun
from tickwheel_operator.projection.expiry import KEPT_MS, expired

HOUR_MS = 3_600_000
NOW_MS = 100 * HOUR_MS


def a_run(name: str, *, age_h: float = 0.0, ttl_s: int | None = None, **more: Any) -> SeenRun:
    fields = {
        "kind": "TaskRun", "uid": name, "namespace": "shops", "name": name, "generation": 1, "task": "sync",
        "final": True, "succeeded": True, "ended_ms": NOW_MS - int(age_h * HOUR_MS), "ttl_s": ttl_s,
    }  # fmt: skip
    return SeenRun(**{**fields, **more})


def deleted(*runs: SeenRun, keep: int | None = 2) -> list[str]:
    """Of a task that keeps so many succeeded and one failed; None: there is no such task."""
    objects = Objects()
    for run in runs:
        objects.put(run)
    if keep is not None:
        spec = TaskSpec(
            uid="t", namespace="shops", name="sync", generation=1, created_ms=0, pool="p", handler="h",
            keep_succeeded=keep, keep_failed=1,
        )  # fmt: skip
        objects.put(SeenTask(kind="ScheduledTask", uid="t", namespace="shops", name="sync", generation=1, spec=spec))
    return expired(objects, NOW_MS)


def test_a_time_of_its_own_counts_from_the_end_and_nothing_else_does() -> None:
    assert deleted(a_run("a", age_h=1, ttl_s=3_600), a_run("b", age_h=1, ttl_s=3_601)) == ["a"]
    assert deleted(a_run("a", ttl_s=0)) == ["a"]
    assert deleted(a_run("open", ttl_s=0, final=False), a_run("untold", ttl_s=0, ended_ms=0)) == []


def test_without_one_the_oldest_go_beyond_the_history_and_not_before_an_hour_is_over() -> None:
    runs = [a_run(f"r{age}", age_h=age) for age in (0.5, 9, 3, 2)]
    assert deleted(*runs) == ["r3", "r9"]
    assert deleted(*runs, keep=0) == ["r2", "r3", "r9"]
    assert KEPT_MS == HOUR_MS


def test_failed_ones_and_other_tasks_and_those_with_a_time_are_counted_apart() -> None:
    runs = [
        a_run("good", age_h=5), a_run("good-too", age_h=6), a_run("other", age_h=7, task="other"),
        a_run("bad", age_h=8, succeeded=False), a_run("timed", age_h=2, ttl_s=999_999),
    ]  # fmt: skip
    assert deleted(*runs) == []
    assert deleted(*runs, a_run("worse", age_h=9, succeeded=False)) == ["worse"]


def test_a_task_that_is_gone_keeps_what_a_task_keeps_by_default() -> None:
    assert deleted(*(a_run(f"r{age}", age_h=age) for age in range(2, 7)), keep=None) == ["r5", "r6"]
