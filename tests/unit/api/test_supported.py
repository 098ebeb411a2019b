"""What this version does not do is refused by name, never ignored."""

from __future__ import annotations

from typing import Any

import pytest

from tickwheel_operator.api import KINDS, parse, unsupported
from tickwheel_operator.api.parse import _model_at
from tickwheel_operator.api.supported import _GAPS


def resource(kind: str, spec: dict[str, Any]) -> Any:
    return parse({"apiVersion": "tickwheel.io/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec})


def task(**spec: Any) -> Any:
    return resource("ScheduledTask", {"pool": "p", "handler": "h", **spec})


EXAMPLES: dict[str, dict[str, Any]] = {
    "ScheduledTask": {
        "spec.execution.broadcast": {},
        "spec.execution.sharded": {"shards": 8},
        "spec.execution.map": {},
        "spec.execution.mapReduce": {},
        "spec.delivery.guarantee": "ExactlyOnce",
        "spec.retry.backoff.levels": ["1s"],
        "spec.retry.only": ["TimeoutError"],
        "spec.retry.never": ["ValueError"],
        "spec.routing.strategy": "Random",
        "spec.routing.requirements": {"cpu": "500m"},
        "spec.routing.busy": "Wait",
        "spec.routing.zonePreference": True,
        "spec.orderingKey": "/account",
        "spec.priority": -1,
        "spec.lane": "short",
        "spec.rateLimit": {"limit": 100},
        "spec.history.retention": "1d",
        "spec.alerts": [{"channel": "ops"}],
    },
    "WorkerPool": {
        "spec.lanes": [{"name": "short"}],
        "spec.queue.discipline": "Fifo",
        "spec.queue.ageing": "1m",
        "spec.queue.limit": 5,
        "spec.queue.overflow": "Spill",
        "spec.rateLimit": {"limit": 100},
        "spec.busy.slots": "50%",
        "spec.busy.cpu": "85%",
        "spec.busy.memory": "90%",
        "spec.busy.recover": "5%",
        "spec.ejection": {},
    },
    "TaskRun": {
        "spec.taskTemplate": {"pool": "p", "handler": "h"},
    },
}
"""A value for each line of the table that can be set alone."""

NOT_ALONE = {"spec.routing.hashKey", "spec.routing.pinned", "spec.queue.fairKey"}
"""The schema ties these to a word that is refused itself."""

BASE = {"ScheduledTask": {"pool": "p", "handler": "h"}, "WorkerPool": {}, "TaskRun": {"task": "a"}}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [(kind, path, value) for kind, paths in EXAMPLES.items() for path, value in paths.items()],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_field_that_is_not_built_is_named(kind: str, path: str, value: Any) -> None:
    spec: dict[str, Any] = dict(BASE[kind])
    if path == "spec.taskTemplate":
        del spec["task"]
    *parents, last = path.split(".")[1:]
    holder = spec
    for parent in parents:
        holder = holder.setdefault(parent, {})
    holder[last] = value
    [fault] = unsupported(resource(kind, spec))
    assert fault.path == path
    assert fault.message.startswith(last)
    assert "is not supported by this version" in fault.message


def test_each_line_of_the_table_has_an_example_here_and_names_a_field() -> None:
    kinds = {kind.__name__: kind for kind in KINDS}
    for kind, gaps in _GAPS.items():
        paths = {gap.path for gap in gaps if gap.path}
        assert paths - NOT_ALONE == EXAMPLES.get(kind, {}).keys(), kind
        for path in paths:
            *parents, last = path.split(".")
            holder = _model_at(kinds[kind], list(parents))
            assert holder is not None, path
            assert last in {info.alias for info in holder.model_fields.values()}, path


@pytest.mark.parametrize("strategy", [("ConsistentHash", "hashKey", "/shop"), ("Pinned", "pinned", {"node": "n1"})])
def test_fields_that_come_in_pairs_are_both_named(strategy: tuple[str, str, Any]) -> None:
    name, field, value = strategy
    paths = [fault.path for fault in unsupported(task(routing={"strategy": name, field: value}))]
    assert paths == ["spec.routing.strategy", f"spec.routing.{field}"]


def test_what_is_built_is_not_refused() -> None:
    for trigger in (
        {"cron": "0 */5 * * * *", "timeZone": "Asia/Shanghai"},
        {"fixedRate": "500ms", "anchor": "2026-01-01T00:00:00Z"},
        {"once": {"after": "10m"}},
        {"once": {"at": "2026-12-24T18:00:00Z"}},
    ):
        assert unsupported(task(trigger=trigger)) == []
    built = task(
        suspend=True,
        parameters={"region": "north"},
        execution={"single": {}},
        concurrency={"policy": "Allow"},
        misfire={"policy": "FireAll", "startingDeadline": "5m", "maxCatchUp": 7},
        delivery={"guarantee": "AtMostOnce", "dispatchTimeout": "30s", "timeout": "10m", "gracePeriod": "1s"},
        retry={"limit": 0, "backoff": {"fixed": {"delay": "5s"}}},
        routing={"strategy": "RoundRobin", "busy": "Transfer"},
        history={"succeeded": 0, "failed": 20},
        priority=0,
        lane="Auto",
    )
    assert unsupported(built) == []
    pool = {
        "replicas": 2,
        "slots": 8,
        "template": {"spec": {"containers": [{"name": "worker", "image": "w"}]}},
        "drainTimeout": "5s",
        "access": {"serviceAccounts": ["a"]},
        "silence": "5s",
        "queue": {"discipline": "Priority"},
        "busy": {"slots": "100%"},
    }
    assert unsupported(resource("WorkerPool", pool)) == []
    run = {
        "task": "a",
        "parameters": {"x": 1},
        "scheduledTime": "2026-11-01T00:00:00Z",
        "idempotencyKey": "k",
        "cancel": True,
    }
    assert unsupported(resource("TaskRun", run)) == []
    span = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"}
    assert unsupported(resource("TaskRun", {"task": "a", "backfill": span})) == []
    assert unsupported(resource("Calendar", {"weekdays": ["Sat"]})) == []


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Workflow", {"nodes": [{"name": "a", "task": "t"}]}),
        ("WorkflowRun", {"workflow": "w"}),
        ("AlertChannel", {"urlsFrom": {"secretKeyRef": {"name": "ops", "key": "urls"}}}),
    ],
)
def test_a_kind_that_is_not_built_is_refused_as_a_whole(kind: str, spec: dict[str, Any]) -> None:
    [fault] = unsupported(resource(kind, spec))
    assert str(fault) == f"kind: {kind} is not supported by this version of Tickwheel"
