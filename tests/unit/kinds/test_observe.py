"""What becomes of the raw objects of the watch: TaskRuns as requests, Calendars as dates."""

from __future__ import annotations

from typing import Any

import pytest

from tickwheel_operator.kinds.calendar import CALENDAR, SeenCalendar
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK
from tickwheel_operator.kinds.taskrun import TASK_RUN, BackfillRequest, RunRequest


def raw(kind: str, spec: dict[str, Any], *, generation: int = 1, uid: str = "u") -> dict[str, Any]:
    metadata = {"uid": uid, "namespace": "ns", "name": "x", "generation": generation}
    return {"apiVersion": "tickwheel.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def request(**spec: Any) -> RunRequest:
    seen = TASK_RUN.observe(raw("TaskRun", {"task": "t", **spec}))
    assert seen is not None and seen.fault is None and seen.request is not None
    return seen.request


def calendar(spec: dict[str, Any], known: SeenCalendar | None = None, **metadata: Any) -> SeenCalendar:
    seen = CALENDAR.observe(raw("Calendar", spec, **metadata), known)
    assert seen is not None
    return seen


def test_a_run_of_now_has_neither_delay_nor_span() -> None:
    asked = request()
    assert (asked.key, asked.scheduled_ms) == ("taskrun/u", None)
    assert (asked.delay_ms, asked.front, asked.backfill) == (0, False, None)


def test_a_backfill_asks_for_the_runs_of_its_span() -> None:
    span = {"from": "1970-01-01T00:00:01Z", "to": "1970-01-01T01:00:00+00:30"}
    assert request(backfill=span).backfill == BackfillRequest(from_ms=1_000, to_ms=1_800_000, max_parallel=10)
    assert request(backfill={**span, "maxParallel": 2}, idempotencyKey="k") == RunRequest(
        task="t", key="k", scheduled_ms=None, parameters=b"", cancel=False,
        backfill=BackfillRequest(from_ms=1_000, to_ms=1_800_000, max_parallel=2),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("trigger", "reason", "field"),
    [
        ({"cron": "0 9 * * *", "window": {"notAfter": "1969-01-01T00:00:00Z"}}, "NeverFires", "spec.trigger.window"),
        ({"fixedDelay": "5m", "window": {"notAfter": "1969-01-01T00:00:00Z"}}, "NeverFires", "spec.trigger.window"),
        ({"cron": "0 9 * * *", "timeZone": "Europe/Berln"}, "InvalidSpec", "spec.trigger.timeZone"),
    ],
)
def test_a_trigger_without_an_instant_is_told_from_one_that_cannot_be_read(
    trigger: dict[str, Any], reason: str, field: str
) -> None:
    task = raw("ScheduledTask", {"pool": "p", "handler": "h", "trigger": trigger})
    seen = SCHEDULED_TASK.observe(task)
    assert seen is not None
    assert seen.spec is None and seen.fault is not None
    assert (seen.fault.reason, seen.fault.message.partition(":")[0]) == (reason, field)


def test_a_calendar_keeps_its_dates_until_its_generation_changes() -> None:
    first = calendar({"dates": ["2026-10-01"]})
    assert first.dates is not None and first.fault is None
    assert calendar({"dates": ["2026-10-01"]}, first).dates is first.dates
    assert calendar({"dates": ["2026-10-02"]}, first, generation=2).dates != first.dates
    assert calendar({"dates": ["2026-10-02"]}, first, uid="another").dates != first.dates


def test_a_faulty_calendar_names_its_field() -> None:
    seen = calendar({"weekdays": ["Sat"], "timeZone": "Asia/Shanghi"})
    assert seen.dates is None
    assert seen.fault is not None
    assert (seen.fault.reason, seen.fault.message.partition(":")[0]) == ("InvalidSpec", "spec.timeZone")
