"""A segment that was edited by hand: the operator says which and ends, and `tickwheel ledger verify` says the same."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from tests.integration.installation import (
    OPERATOR_ACCOUNT,
    apply,
    custom_object,
    get,
)
from tests.integration.processes import Crew
from tests.integration.soak.scenario import until

from tickwheel_cluster import Access
from tickwheel_operator.cli.main import main
from tickwheel_operator.ledger.codec import encode_facts
from tickwheel_operator.ledger.facts import TaskForgotten


def test_facts_that_do_not_fit_are_named_by_the_operator_and_by_verify(cluster: Access, tmp_path: Path) -> None:
    crew = Crew.installed(cluster, tmp_path, "corrupt")
    namespace, system = crew.namespace, crew.system
    task = {"trigger": {"fixedRate": "1s"}, "pool": "work", "handler": "quick"}
    apply(
        cluster,
        custom_object("WorkerPool", namespace, "work", {"slots": 4}),
        custom_object("ScheduledTask", namespace, "ticks", task),
    )
    with crew:
        first = crew.operator("first")
        until("some segments of facts", lambda: len(_facts(cluster, system)) >= 3)
        assert first.terminate() == 0
        edited = _facts(cluster, system)[1]
        name = edited["metadata"]["name"].removeprefix("tickwheel-")
        _replace(cluster, system, edited, encode_facts([TaskForgotten(7)]))

        second = crew.operator("second")
        until("the operator to end", lambda: not second.alive)
        log = second.log.read_text()
        assert f"{name}: its facts can be decoded, but do not fit" in log
        assert "already running" not in log, "the reading of the log was not ended"
        kubeconfig = str(cluster.service_account_kubeconfig(system, OPERATOR_ACCOUNT))
        result = CliRunner().invoke(main, ["ledger", "verify", "-n", system, "--kubeconfig", kubeconfig])
        assert result.exit_code == 1, result.output
        assert f"Error: {name}: " in result.output
        assert "do not fit what the log says before them (KeyError: 7)" in result.output


def _facts(cluster: Access, system: str) -> list[dict[str, Any]]:
    """In their order."""
    items = get(cluster, "LedgerSegment", system)["items"]
    found = [item for item in items if item["spec"]["kind"] == "Facts"]
    return sorted(found, key=lambda item: item["spec"]["sequence"])


def _replace(cluster: Access, system: str, item: dict[str, Any], data: bytes) -> None:
    path = f"/apis/tickwheel.io/v1alpha1/namespaces/{system}/ledgersegments"
    metadata = {key: item["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    spec = {**item["spec"], "data": base64.b64encode(data).decode()}
    cluster.request("DELETE", f"{path}/{item['metadata']['name']}")
    cluster.request("POST", path, {**item, "metadata": metadata, "spec": spec})
