"""The CRDs: in step with the models, structural, bounded, documented."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tickwheel_operator.api import KINDS
from tickwheel_operator.api.generate import drift, files, main, schema, write

CRDS = Path(__file__).parents[3] / "crds"
Schema = dict[str, Any]


def nodes(node: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """The schema and all that is inside of it, with their paths."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(node.get(keyword), dict):
            yield from nodes(node[keyword], f"{path}[{keyword}]")


def fields() -> list[tuple[str, Schema]]:
    """Every field of every kind, without the ones that Kubernetes itself bounds."""
    found = [pair for kind in KINDS for pair in nodes(schema(kind), kind.kind_name())]
    own = (".apiVersion", ".kind", ".metadata")
    return [(path, node) for path, node in found if not (path.count(".") == 1 and path.endswith(own))]


def test_the_committed_crds_are_those_of_the_models() -> None:
    assert drift(CRDS) == [], "run `python -m tickwheel_operator.api.generate`"


@pytest.mark.parametrize("damage", ["edited", "missing", "foreign"])
def test_a_directory_that_drifted_is_told_and_fails(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    assert main(["--check", str(tmp_path)]) == 0
    file = tmp_path / "calendars.yaml"
    match damage:
        case "edited":
            file.write_text(file.read_text().replace("maxItems: 7", "maxItems: 8"))
        case "missing":
            file.unlink()
        case "foreign":
            (tmp_path / "timers.yaml").write_text("{}")
    assert main(["--check", str(tmp_path)]) == 1
    assert ("timers.yaml" if damage == "foreign" else "calendars.yaml") in capsys.readouterr().err


def test_writing_mends_drift(tmp_path: Path) -> None:
    (tmp_path / "timers.yaml").write_text("{}")
    assert main([str(tmp_path)]) == 0
    assert drift(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_kubectl_knows_each_kind_by_the_names_that_the_api_promises(kind: Any) -> None:
    short = {
        "ScheduledTask": ["twt"],
        "WorkerPool": ["twp"],
        "TaskRun": ["twr"],
        "Workflow": ["twf"],
        "WorkflowRun": ["twfr"],
        "Calendar": ["twc"],
        "AlertChannel": ["twa"],
        "LedgerSegment": None,
    }
    [document] = [yaml.safe_load(text) for name, text in files().items() if name == f"{kind.presentation.plural}.yaml"]
    spec = document["spec"]
    assert document["metadata"]["name"] == f"{kind.presentation.plural}.tickwheel.io"
    assert spec["scope"] == "Namespaced"
    assert spec["names"].get("shortNames") == short[kind.__name__]
    assert spec["names"].get("categories") == (None if kind.__name__ == "LedgerSegment" else ["tickwheel"])
    [version] = spec["versions"]
    assert ("status" in version.get("subresources", {})) == (kind.__name__ != "LedgerSegment")


def test_a_task_is_listed_as_the_api_says() -> None:
    document = yaml.safe_load(files()["scheduledtasks.yaml"])
    columns = document["spec"]["versions"][0]["additionalPrinterColumns"]
    narrow = [column["name"].upper() for column in columns if not column.get("priority")]
    assert narrow == ["TRIGGER", "ZONE", "SUSPENDED", "ACTIVE", "LAST", "NEXT", "READY", "AGE"]


def test_a_pool_can_be_scaled_with_a_selector() -> None:
    [version] = yaml.safe_load(files()["workerpools.yaml"])["spec"]["versions"]
    assert version["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


def test_schemas_are_structural() -> None:
    for path, node in fields():
        foreign = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "title"} & node.keys()
        assert not foreign, f"{path} has {foreign}"
        free = node.get("x-kubernetes-preserve-unknown-fields") or node.get("x-kubernetes-int-or-string")
        assert "type" in node or free, f"{path} has no type"
        assert not ("properties" in node and "additionalProperties" in node), path


def test_every_field_is_documented() -> None:
    silent = [path for path, node in fields() if not node.get("description") and not path.endswith("]")]
    assert silent == []


def test_every_string_list_and_map_has_a_bound() -> None:
    for path, node in fields():
        match node.get("type"):
            case "string":
                assert "maxLength" in node or "enum" in node, path
            case "array":
                assert "maxItems" in node, path
                assert "x-kubernetes-list-type" in node, path
            case "integer" | "number":
                assert {"minimum", "maximum"} <= node.keys(), path
            case "object" if "additionalProperties" in node:
                assert "maxProperties" in node, path


def test_only_free_json_keeps_unknown_fields() -> None:
    free = {path for path, node in fields() if node.get("x-kubernetes-preserve-unknown-fields")}
    assert {path.replace("spec.taskTemplate", "spec") for path in free} == {
        "ScheduledTask.spec.parameters",
        "ScheduledTask.spec.execution.sharded.parameters",
        "TaskRun.spec.parameters",
        "TaskRun.spec.execution.sharded.parameters",
        "TaskRun.status.result",
        "WorkerPool.spec.template.spec",
        "WorkerPool.status.handlers[items].parameters",
        "WorkerPool.status.handlers[items].result",
        "Workflow.spec.parameters",
        "Workflow.spec.nodes[items].parameters",
        "WorkflowRun.spec.parameters",
        "WorkflowRun.status.result",
    }


def test_unions_have_no_default_member() -> None:
    """A stored default member would forbid every other one at the next `kubectl apply`."""
    for path, node in fields():
        if path.endswith((".trigger", ".execution", ".backoff")) and node["type"] == "object":
            assert "default" not in node, path
            assert all("default" not in node["properties"][name] for name in ("exponential",) if "backoff" in path)


def test_the_schema_of_the_hot_path_has_nothing_to_evaluate() -> None:
    segment = schema(next(kind for kind in KINDS if kind.__name__ == "LedgerSegment"))
    costly = {"pattern", "format", "x-kubernetes-validations"}
    for path, node in nodes(segment, ""):
        assert not costly & node.keys() or node.get("type") == "integer", path
    assert segment["properties"]["spec"]["properties"]["data"]["maxLength"] >= 512 * 1024 * 4 // 3
