"""An object that Python cannot decode costs no other object anything, also where no admission policy refuses it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from tests.integration.installation import apply, custom_object, get
from tests.integration.processes import Crew
from tests.integration.soak.scenario import until

from tickwheel_cluster import Access

_TASK = {"pool": "shops", "handler": "quick"}


def _create_deep(cluster: Access, namespace: str) -> None:
    document = json.dumps(custom_object("ScheduledTask", namespace, "deep", {**_TASK, "parameters": {"a": "@"}}))
    context, headers = cluster._admin()
    request = urllib.request.Request(
        f"{cluster.url}/apis/tickwheel.io/v1alpha1/namespaces/{namespace}/scheduledtasks",
        data=document.replace('"@"', "[" * 1_100 + "]" * 1_100).encode(),
        method="POST",
        headers={"Content-Type": "application/json", **headers},
    )
    urllib.request.urlopen(request, context=context, timeout=60).close()


@pytest.mark.parametrize("when", ["before", "while"])
def test_an_operator_leads_and_serves_all_others_beside_an_object_that_is_too_deep(
    cluster: Access, tmp_path: Path, when: str
) -> None:
    crew = Crew.installed(cluster, tmp_path, f"deep-{when}")
    namespace = crew.namespace
    apply(cluster, custom_object("WorkerPool", namespace, "shops", {}))

    def conditions(name: str) -> dict[str, str]:
        found = get(cluster, "ScheduledTask", namespace, name).get("status", {}).get("conditions", ())
        return {condition["type"]: condition["status"] for condition in found}

    def is_told() -> bool:
        events = cluster.request("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
        told = [event.get("note", "") for event in events if event["regarding"]["name"] == "deep"]
        return any("spec.parameters" in note for note in told)

    if when == "before":
        _create_deep(cluster, namespace)
    with crew:
        operator = crew.operator("replica")
        operator.wait_ready()
        until("it to lead", lambda: operator.metrics().get('tickwheel_leader{partition="0"}') == 1)
        if when == "while":
            _create_deep(cluster, namespace)
        apply(cluster, custom_object("ScheduledTask", namespace, "later", _TASK))
        until("a later task to be looked at", lambda: conditions("later").get("Ready") == "True")
        until("an Event that names the field", is_told)
        assert operator.alive
