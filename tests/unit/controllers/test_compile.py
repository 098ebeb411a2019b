"""Resources become the engine's values, or say which field is at fault."""

from __future__ import annotations

from typing import Any

import pytest

from tickwheel_operator.api import InvalidManifest, ScheduledTask, parse
from tickwheel_operator.controllers.compile import compile_task
from tickwheel_operator.engine.spec import Backoff, Guarantee, MisfirePolicy, TaskSpec
from tickwheel_operator.engine.triggers import CronTrigger, FixedRateTrigger, OnceTrigger

CREATED_MS = 1_767_225_600_000


def compiled(**spec: Any) -> TaskSpec:
    task = parse(
        {
            "apiVersion": "tickwheel.io/v1alpha1",
            "kind": "ScheduledTask",
            "metadata": {
                "name": "sync", "namespace": "shops", "uid": "u-1", "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"pool": "shops", "handler": "h", **spec},
        }
    )  # fmt: skip
    assert isinstance(task, ScheduledTask)
    return compile_task(task)


def test_a_task_keeps_who_it_is() -> None:
    spec = compiled(parameters={"region": "north"}, suspend=True)
    assert (spec.uid, spec.namespace, spec.name, spec.generation) == ("u-1", "shops", "sync", 3)
    assert spec.created_ms == CREATED_MS
    assert (spec.pool, spec.handler, spec.parameters, spec.suspend) == ("shops", "h", b'{"region":"north"}', True)


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        ({"cron": "0 4 * * *", "timeZone": "Asia/Shanghai"}, CronTrigger("0 4 * * *", "Asia/Shanghai")),
        ({"fixedRate": "500ms"}, FixedRateTrigger(500, CREATED_MS)),
        ({"fixedRate": "1s", "anchor": "2026-01-01T00:00:01Z"}, FixedRateTrigger(1_000, CREATED_MS + 1_000)),
        ({"once": {"at": "2026-01-01T00:01:00Z"}}, OnceTrigger(CREATED_MS + 60_000)),
        ({"once": {"after": "10m"}}, OnceTrigger(CREATED_MS + 600_000)),
        ({}, None),
    ],
)
def test_triggers(trigger: dict[str, Any], expected: object) -> None:
    assert compiled(trigger=trigger).trigger == expected


def test_a_hashed_schedule_depends_on_namespace_and_name_only() -> None:
    trigger = compiled(trigger={"cron": "H H * * *"}).trigger
    assert isinstance(trigger, CronTrigger)
    assert trigger.identity == "shops/sync"


def test_policies() -> None:
    spec = compiled(
        misfire={"policy": "FireAll", "startingDeadline": "5m", "maxCatchUp": 7},
        delivery={"guarantee": "AtMostOnce", "timeout": "10m", "dispatchTimeout": "30s", "gracePeriod": "3s"},
        retry={"limit": 5, "backoff": {"fixed": {"delay": "5s"}}},
        history={"succeeded": 1, "failed": 2},
    )
    assert spec.misfire.policy is MisfirePolicy.FIRE_ALL
    assert (spec.misfire.starting_deadline_ms, spec.misfire.max_catch_up) == (300_000, 7)
    assert spec.guarantee is Guarantee.AT_MOST_ONCE
    assert (spec.timeout_ms, spec.dispatch_timeout_ms, spec.grace_ms) == (600_000, 30_000, 3_000)
    assert spec.retry.limit == 5
    assert spec.retry.backoff == Backoff(initial_ms=5_000, factor=1.0, max_ms=5_000)
    assert (spec.keep_succeeded, spec.keep_failed) == (1, 2)


def test_the_default_backoff_is_the_resources_own() -> None:
    assert compiled().retry.backoff == Backoff(initial_ms=1_000, factor=2.0, max_ms=300_000, jitter=0.2)


def test_equal_policies_are_one_object_so_that_20000_tasks_stay_small() -> None:
    assert compiled().retry is compiled().retry
    assert compiled().misfire is compiled().misfire


def test_a_date_that_never_comes_is_refused_with_its_field() -> None:
    with pytest.raises(InvalidManifest) as refused:
        compiled(trigger={"cron": "0 0 30 2 *"})
    assert refused.value.faults[0].path == "spec.trigger.cron"


def test_what_the_engine_has_no_trigger_for_is_refused_with_its_field() -> None:
    with pytest.raises(InvalidManifest) as refused:
        compiled(trigger={"fixedDelay": "30s"})
    assert refused.value.faults[0].path == "spec.trigger.fixedDelay"
