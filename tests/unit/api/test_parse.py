"""From a document to a resource, or to sentences for whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from tickwheel_operator.api import (
    KINDS,
    InvalidManifest,
    ScheduledTask,
    TaskRun,
    WorkerPool,
    parse,
    sentence,
)
from tickwheel_operator.api.delivery import Exponential, Fixed
from tickwheel_operator.api.faults import FieldFault
from tickwheel_operator.api.generate import schema


def task(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "ScheduledTask",
        "metadata": {"name": "shop-sync", "namespace": "shops"},
        "spec": {"pool": "shops", "handler": "shop-sync", **spec},
    }


def faults(document: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidManifest) as caught:
        parse(document)
    return {fault.path: fault.message for fault in caught.value.faults}


def defaulted(value: Any, node: dict[str, Any]) -> Any:
    """What the API server stores: the schema's defaults filled in, from the outside in."""
    if isinstance(value, dict):
        result = dict(value)
        for name, child in node.get("properties", {}).items():
            if name not in result and "default" in child:
                result[name] = child["default"]
            if name in result:
                result[name] = defaulted(result[name], child)
        return result
    if isinstance(value, list):
        return [defaulted(entry, node["items"]) for entry in value]
    return value


MINIMAL = [
    task(),
    task(
        trigger={"cron": "0 9 * * *", "calendars": [{"name": "a"}]},
        execution={"map": {}},
        retry={"backoff": {"exponential": {}}},
        alerts=[{"channel": "ops"}],
        rateLimit={"limit": 5},
    ),
    {"apiVersion": "tickwheel.io/v1alpha1", "kind": "WorkerPool", "metadata": {"name": "p"}},
    {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": "p"},
        "spec": {
            "template": {"spec": {"containers": [{"name": "worker", "image": "shop:1"}]}},
            "lanes": [{"name": "short"}],
            "ejection": {},
            "autoscaling": {"maxReplicas": 3},
        },
    },
    {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "TaskRun",
        "metadata": {"generateName": "r-"},
        "spec": {"task": "a"},
    },
    {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "TaskRun",
        "metadata": {"name": "r"},
        "spec": {"taskTemplate": {"pool": "p", "handler": "h"}},
    },
    {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "w"},
        "spec": {"nodes": [{"name": "a", "task": "t"}, {"name": "b", "wait": {"until": "18:00"}, "dependsOn": ["a"]}]},
    },
    {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "WorkflowRun",
        "metadata": {"name": "w"},
        "spec": {"workflow": "w"},
    },
    {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "Calendar",
        "metadata": {"name": "c"},
        "spec": {"weekdays": ["Sat"]},
    },
    {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "AlertChannel",
        "metadata": {"name": "c"},
        "spec": {"urlsFrom": {"secretKeyRef": {"name": "ops", "key": "urls"}}},
    },
    {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "LedgerSegment",
        "metadata": {"name": "0-1"},
        "spec": {"partition": "0", "sequence": 1, "kind": "Facts", "epoch": 1, "nonce": "x", "data": ""},
    },
]


@pytest.mark.parametrize("document", MINIMAL, ids=lambda document: document["kind"])
def test_a_file_and_the_object_that_the_api_server_makes_of_it_are_one_resource(document: dict[str, Any]) -> None:
    kind = next(kind for kind in KINDS if kind.__name__ == document["kind"])
    stored = defaulted(document, schema(kind))
    assert parse(stored) == parse(document)


def test_what_a_user_wrote_comes_back() -> None:
    spec = {
        "trigger": {"dailyInterval": {"every": "15m", "from": "08:00", "to": "18:00", "days": ["Mon", "Tue"]}},
        "pool": "shops",
        "handler": "shop-sync",
        "parameters": {"shop": {"id": 4711}},
        "routing": {"requirements": {"cpu": "500m"}},
    }
    assert parse(task(**spec)).manifest()["spec"] == spec


def test_the_status_of_an_object_cannot_make_it_invalid() -> None:
    assert isinstance(parse({**task(), "status": {"active": "many", "new": 1, True: "on"}}), ScheduledTask)


def test_what_the_server_keeps_of_an_object_is_not_read() -> None:
    document = task()
    document["metadata"]["managedFields"] = [{"fieldsV1": {True: {}}}]
    assert isinstance(parse(document), ScheduledTask)


def test_metadata_that_kubernetes_adds_is_no_fault() -> None:
    document = task()
    document["metadata"] |= {"managedFields": [{}], "uid": "u", "generation": 2, "ownerReferences": []}
    assert parse(document).metadata.uid == "u"


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        ({"triger": {}}, "spec.triger", "did you mean trigger? allowed: trigger, suspend, pool"),
        ({"trigger": {"time_zone": "UTC"}}, "spec.trigger.time_zone", "did you mean timeZone?"),
        ({"pool": None}, "spec.pool", "null is not text"),
        ({"retry": {"limit": "3"}}, "spec.retry.limit", "'3' is not a whole number"),
        ({"retry": {"limit": True}}, "spec.retry.limit", "true is not a whole number"),
        ({"retry": {"limit": 1.5}}, "spec.retry.limit", "1.5 is not a whole number"),
        ({"suspend": 1}, "spec.suspend", "1 is not true or false"),
        ({"priority": 1001}, "spec.priority", "the most is 1000"),
        ({"delivery": []}, "spec.delivery", "a list is not an object"),
        ({"alerts": {"channel": "ops"}}, "spec.alerts", "an object is not a list"),
        (
            {"alerts": [{"channel": "ops"}, {"channel": "x", "chanel": "x"}]},
            "spec.alerts[1].chanel",
            "did you mean channel?",
        ),
        (
            {"misfire": {"policy": "Fireonce"}},
            "spec.misfire.policy",
            "Skip, FireOnce, FireAll (did you mean FireOnce?)",
        ),
        ({"trigger": {"cron": "61 * * * *"}}, "spec.trigger.cron", "minute field: '61' is out of range"),
        ({"trigger": {"cron": "0 0 30 2 *"}}, "spec.trigger.cron", "never fires"),
        (
            {"trigger": {"cron": "0 9 * * *", "timeZone": "Shanghai"}},
            "spec.trigger.timeZone",
            "did you mean Asia/Shanghai",
        ),
        ({"trigger": {"cron": "0 9 * * *", "fixedRate": "5s"}}, "spec.trigger", "at most one of cron, fixedRate"),
        ({"parameters": {"x": "é" * 33_000}}, "spec.parameters", "has 66008 bytes as JSON; 65536 are allowed"),
        ({"retry": {True: ["X"]}}, "spec.retry", "the key true is not text; quote it"),
        (
            {"execution": {"sharded": {"shards": 2, "parameters": {"2": "x"}}}},
            "spec.execution.sharded.parameters",
            "0 to 1 are allowed",
        ),
        (
            {"routing": {"pinned": {"selector": {"matchLabels": {"a": 5}}}, "strategy": "Pinned"}},
            "spec.routing.pinned.selector.matchLabels.a",
            "5 is not text (quote it)",
        ),
    ],
)
def test_a_fault_names_its_field_and_what_is_allowed(spec: dict[Any, Any], path: str, words: str) -> None:
    found = faults(task() | {"spec": {"pool": "shops", "handler": "h"} | spec})
    assert list(found) == [path]
    assert words in found[path]


def test_all_faults_come_at_once_and_none_is_a_dump() -> None:
    with pytest.raises(InvalidManifest) as caught:
        parse(task(prio=1, suspend="no", delivery={"timeout": "-5s"}, retry={"limit": -1}))
    assert {fault.path for fault in caught.value.faults} == {
        "spec.prio",
        "spec.suspend",
        "spec.delivery.timeout",
        "spec.retry.limit",
    }
    assert not any(word in str(caught.value) for word in ("pydantic", "input_value", "validation error", "Traceback"))


def test_a_missing_field_is_explained() -> None:
    document = task()
    del document["spec"]["pool"]
    assert faults(document) == {"spec.pool": "is missing. The WorkerPool of the same namespace whose workers run it."}


def test_an_object_without_a_name_or_with_one_that_is_too_long_is_refused() -> None:
    document = task()
    document["metadata"] = {}
    assert "is missing" in faults(document)["metadata.name"]
    document["metadata"] = {"name": "n" * 201}
    assert "200 characters at most" in faults(document)["metadata.name"]


def test_foreign_kinds_and_versions_are_refused_with_those_that_there_are() -> None:
    assert "did you mean ScheduledTask?" in faults({**task(), "kind": "ScheduledTsk"})["kind"]
    assert "tickwheel.io/v1alpha1" in faults({**task(), "apiVersion": "tickwheel.io/v1"})["apiVersion"]
    assert "kind" in faults({"apiVersion": "tickwheel.io/v1alpha1"})


def test_a_run_has_no_trigger() -> None:
    template = {"pool": "p", "handler": "h", "trigger": {"cron": "0 9 * * *"}}
    document = {**task(), "kind": "TaskRun", "spec": {"taskTemplate": template}}
    assert "a run has no trigger" in faults(document)["spec.taskTemplate.trigger"]


def test_the_nodes_of_a_workflow_must_exist_and_not_wait_in_a_circle() -> None:
    def workflow(*nodes: dict[str, Any]) -> dict[str, Any]:
        return {**task(), "kind": "Workflow", "spec": {"nodes": list(nodes)}}

    a, b = {"name": "a", "task": "t", "dependsOn": ["b"]}, {"name": "b", "task": "t", "dependsOn": ["a"]}
    assert "in a circle: a, b" in faults(workflow(a, b))["spec.nodes"]
    assert "'b' is not a node" in faults(workflow(a))["spec.nodes[0].dependsOn[0]"]
    assert "neither Fail" in faults(workflow({"name": "a", "task": "t", "onFailure": "x"}))["spec.nodes[0].onFailure"]


def test_a_retry_always_knows_its_backoff() -> None:
    def backoff(**retry: Any) -> Any:
        return parse(task(retry=retry)).spec.retry.effective_backoff

    assert backoff() == Exponential()
    assert backoff(backoff={}) == Exponential()
    assert backoff(backoff={"fixed": {"delay": "2s"}}) == Fixed.model_validate({"delay": "2s"})
    assert [level.milliseconds for level in backoff(backoff={"levels": ["1s", "5s"]})] == [1_000, 5_000]


def test_an_object_that_is_nested_without_end_is_a_fault() -> None:
    nested: Any = 1
    for _ in range(5_000):
        nested = [nested]
    assert faults(task(parameters={"a": nested})) == {"spec.parameters": "is nested more than 100 levels deep"}


def test_the_other_kinds_parse_to_their_classes() -> None:
    pool = parse({**task(), "kind": "WorkerPool", "spec": {"slots": 4}})
    assert isinstance(pool, WorkerPool)
    assert (pool.spec.slots, pool.spec.replicas) == (4, 1)
    run = parse({**task(), "kind": "TaskRun", "spec": {"task": "shop-sync", "cancel": True}})
    assert isinstance(run, TaskRun)
    assert run.spec.cancel


def test_a_long_list_of_faults_is_counted_not_cut_in_silence() -> None:
    many = [FieldFault(f"spec.f{n}", "is wrong") for n in range(12)]
    assert sentence(many).endswith("spec.f9: is wrong; and 2 more")
    assert sentence(many[:1]) == "spec.f0: is wrong"


@pytest.mark.parametrize(
    ("spec", "path", "form"),
    [
        ({"retry": {"backoff": {"fixed": "1s"}}}, "spec.retry.backoff.fixed", "{delay: 1s}"),
        ({"retry": {"backoff": {"exponential": "1s"}}}, "spec.retry.backoff.exponential", "{initial: 1s}"),
        ({"retry": {"backoff": "1s"}}, "spec.retry.backoff", "{exponential: {initial: 1s}}"),
        ({"retry": 3}, "spec.retry", "{limit: 3}"),
        ({"misfire": "Skip"}, "spec.misfire", "{policy: Skip}"),
        ({"trigger": "0 9 * * *"}, "spec.trigger", '{cron: "0 9 * * *"}'),
        ({"trigger": {"once": "2026-12-24T18:00:00Z"}}, "spec.trigger.once", "{at: 2026-12-24T18:00:00Z}"),
        ({"trigger": {"calendars": ["closed"]}}, "spec.trigger.calendars[0]", "{name: closed}"),
    ],
)
def test_a_value_in_the_place_of_an_object_is_answered_with_the_form(
    spec: dict[str, Any], path: str, form: str
) -> None:
    assert faults(task(**spec))[path].endswith(f"is not an object (fields with values); write it as {form}")
