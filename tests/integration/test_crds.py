"""The CRDs on a real API server: accepted, strict, defaulted, immutable where they say so, and documented.

The malformed manifests of `manifests/bad` begin with a line that says who must refuse them and with which words:
`# expect: apply ...` is the API server's answer, `# expect: stalled ...` the message of the condition that the
operator sets on an object that the API server lets in.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as k8s
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config
from tests.integration.soak.scenario import until

from tickwheel_cluster import find_binaries
from tickwheel_operator.api import KINDS, InvalidManifest, documents, parse, sentence, unsupported

BAD = sorted((Path(__file__).parent / "manifests" / "bad").glob("*.yaml"))
PLURALS = {kind.kind_name(): kind.presentation.plural for kind in KINDS}
NAMESPACE = "default"


class Server:
    """The API server as kubectl uses it: strict about unknown fields."""

    def __init__(self, api: k8s.ApiClient) -> None:
        self.objects = k8s.CustomObjectsApi(api)
        self.extensions = k8s.ApiextensionsV1Api(api)
        self._made: list[tuple[str, str]] = []

    def create(self, document: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """The object as the server has stored it. Raises ApiException."""
        plural = PLURALS[document["kind"]]
        options = {"dry_run": "All"} if dry_run else {}
        made: dict[str, Any] = self.objects.create_namespaced_custom_object(
            "tickwheel.io", "v1alpha1", NAMESPACE, plural, document, field_validation="Strict", **options
        )
        if not dry_run:
            self._made.append((plural, made["metadata"]["name"]))
        return made

    def patch(self, made: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        """A merge patch of the spec, as `kubectl apply` and `kubectl patch --type merge` send it."""
        patched: dict[str, Any] = self.objects.patch_namespaced_custom_object(
            "tickwheel.io", "v1alpha1", NAMESPACE, PLURALS[made["kind"]], made["metadata"]["name"], {"spec": spec}
        )
        return patched

    def clean(self) -> None:
        for plural, name in self._made:
            self.objects.delete_namespaced_custom_object("tickwheel.io", "v1alpha1", NAMESPACE, plural, name)


@pytest.fixture
def server(cluster: Any) -> Iterator[Server]:
    with new_client_from_config(config_file=str(cluster.admin_kubeconfig)) as api:
        server = Server(api)
        yield server
        server.clean()


def document(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "tickwheel.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def refusal(server: Server, made: dict[str, Any], spec: dict[str, Any]) -> str:
    with pytest.raises(ApiException) as caught:
        server.patch(made, spec)
    assert caught.value.status == 422
    return str(json.loads(caught.value.body)["message"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_api_server_serves_every_kind_as_a_structural_schema(kind: Any, server: Server) -> None:
    crd = server.extensions.read_custom_resource_definition(f"{kind.presentation.plural}.tickwheel.io")
    conditions = {condition.type: condition for condition in crd.status.conditions}
    assert conditions["Established"].status == "True"
    assert "NonStructuralSchema" not in conditions


def test_there_are_enough_malformed_manifests() -> None:
    assert len(BAD) >= 40


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_malformed_manifest_is_refused_in_words_that_name_the_field(path: Path, server: Server) -> None:
    text = path.read_text(encoding="utf-8")
    comment, expect, by, words = text.splitlines()[0].split(maxsplit=3)
    assert (comment, expect) == ("#", "expect:")
    sent = next(documents(text)).body
    if by == "apply":
        with pytest.raises(ApiException) as caught:
            server.create(sent, dry_run=True)
        assert words in json.loads(caught.value.body)["message"]
        with pytest.raises(InvalidManifest):  # without a server (`tickwheel dev`, `lint`) it is refused just so
            parse(sent)
    else:
        assert by == "stalled"
        assert words in stalled_message(server.create(sent, dry_run=True))


def stalled_message(stored: dict[str, Any]) -> str:
    """What the operator says of an object that the API server let in."""
    try:
        return sentence(unsupported(parse(stored)))
    except InvalidManifest as error:
        return sentence(error.faults)


def test_what_the_server_stores_has_its_defaults_and_is_what_the_file_said(server: Server) -> None:
    sent = document("ScheduledTask", "crd-defaults", pool="shops", handler="sync", trigger={"cron": "0 9 * * *"})
    stored = server.create(sent)
    assert stored["spec"]["trigger"] == {"cron": "0 9 * * *", "timeZone": "UTC", "jitter": "0s"}
    assert stored["spec"]["delivery"] == {"guarantee": "AtLeastOnce", "gracePeriod": "10s"}
    assert stored["spec"]["misfire"] == {"policy": "FireOnce", "maxCatchUp": 100}
    resource = parse(stored)
    assert resource.spec == parse(sent).spec
    assert unsupported(resource) == []


def test_parameters_are_kept_as_they_are(server: Server) -> None:
    parameters = {"shop": {"id": 4711, "tags": ["a", {"b": None}]}, "Not-A-Field": True, "rate": 0.5}
    sent = document("ScheduledTask", "crd-parameters", pool="shops", handler="sync", parameters=parameters)
    assert server.create(sent)["spec"]["parameters"] == parameters


def test_a_union_can_be_switched_by_apply_after_the_server_stored_defaults(server: Server) -> None:
    made = server.create(document("ScheduledTask", "crd-union", pool="shops", handler="sync", retry={}))
    fixed = server.patch(made, {"retry": {"backoff": {"fixed": {"delay": "5s"}}}})
    assert fixed["spec"]["retry"]["backoff"] == {"fixed": {"delay": "5s"}}
    assert "at most one of exponential, fixed, levels" in refusal(
        server, made, {"retry": {"backoff": {"exponential": {}}}}
    )


@pytest.mark.parametrize(
    "change",
    [
        {"task": "other"},
        {"parameters": {"shop": {"id": 2}}},
        {"parameters": {"more": 1}},
        {"parameters": None},
        {"scheduledTime": "2026-11-02T00:00:00Z"},
        {"idempotencyKey": "order-4712"},
        {"delay": "5s", "scheduledTime": None},
        {"backfill": {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"}, "scheduledTime": None},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_run_cannot_be_changed_once_it_was_asked_for(change: dict[str, Any], server: Server) -> None:
    asked = {
        "task": "shop-sync",
        "parameters": {"shop": {"id": 1}},
        "scheduledTime": "2026-11-01T00:00:00Z",
        "idempotencyKey": "order-4711",
    }
    made = server.create(document("TaskRun", "crd-run", **asked))
    assert "a run cannot be changed once it was asked for" in refusal(server, made, change)


def test_a_run_can_be_cancelled_and_a_cancel_is_final(server: Server) -> None:
    made = server.create(document("TaskRun", "crd-cancel", task="shop-sync"))
    assert server.patch(made, {"cancel": True})["spec"]["cancel"] is True
    assert "a cancel cannot be taken back" in refusal(server, made, {"cancel": False})


def test_runs_are_selected_by_their_task(server: Server) -> None:
    for name, task in (("crd-run-a", "crd-task-a"), ("crd-run-b", "crd-task-b")):
        server.create(document("TaskRun", name, task=task))
    found = server.objects.list_namespaced_custom_object(
        "tickwheel.io", "v1alpha1", NAMESPACE, "taskruns", field_selector="spec.task=crd-task-a"
    )
    assert [item["metadata"]["name"] for item in found["items"]] == ["crd-run-a"]


def test_a_pool_is_scaled_through_its_subresource(server: Server) -> None:
    made = server.create(document("WorkerPool", "crd-pool"))
    where = ("tickwheel.io", "v1alpha1", NAMESPACE, "workerpools", "crd-pool")
    server.objects.patch_namespaced_custom_object_status(
        *where, {"status": {"replicas": 1, "selector": "tickwheel.io/pool=crd-pool"}}
    )
    server.objects.patch_namespaced_custom_object_scale(*where, {"spec": {"replicas": 5}})
    scale = server.objects.get_namespaced_custom_object_scale(*where)
    assert scale["spec"]["replicas"] == 5
    assert scale["status"] == {"replicas": 1, "selector": "tickwheel.io/pool=crd-pool"}
    assert made["spec"]["replicas"] == 1


def test_a_full_status_is_stored_as_it_is(server: Server) -> None:
    server.create(document("TaskRun", "crd-status", task="shop-sync"))
    instant = "2026-11-01T00:00:00Z"
    condition = {"status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": instant}
    status = {
        "observedGeneration": 1,
        "conditions": [{"type": "Succeeded", "observedGeneration": 1, **condition}],
        "runId": "u.1",
        "state": "Succeeded",
        "scheduledTime": instant,
        "startTime": instant,
        "completionTime": instant,
        "lateness": "3ms",
        "attempts": 2,
        "worker": "shops-0",
        "transfers": [{"time": instant, "kind": "Failover", "from": "shops-1", "to": "shops-0", "reason": "lost"}],
        "progress": {"percent": 100, "message": "done"},
        "dispatches": {"total": 1, "succeeded": 1, "failed": 0},
        "result": [1, {"any": "JSON"}],
        "error": {"type": "WorkerLost", "message": "m", "traceback": "t"},
    }
    stored = server.objects.patch_namespaced_custom_object_status(
        "tickwheel.io", "v1alpha1", NAMESPACE, "taskruns", "crd-status", {"status": status}
    )
    assert stored["status"] == status


def test_the_largest_ledger_segment_is_let_in(server: Server) -> None:
    spec = {
        "partition": "0",
        "sequence": 2**53,
        "kind": "Facts",
        "generation": 1,
        "epoch": 3,
        "nonce": "n",
        "version": 1,
        "chunk": 0,
        "chunks": 1,
        "data": base64.b64encode(bytes(512 * 1024)).decode(),
    }
    assert server.create({**document("LedgerSegment", "crd-segment"), "spec": spec})["spec"] == spec


def test_kubectl_explains_a_trigger_as_documentation(cluster: Any) -> None:
    def explain(what: str) -> str:
        command = [str(find_binaries() / "kubectl"), f"--kubeconfig={cluster.admin_kubeconfig}", "explain", what]
        return " ".join(subprocess.run(command, check=False, capture_output=True, text=True).stdout.split())

    until("the kinds to be in what the API server publishes", lambda: explain("twt"))
    trigger = explain("twt.spec.trigger")
    assert "When the task fires: at most one of `cron`, `fixedRate`" in trigger
    assert "cron <string> A cron expression: 5 fields" in trigger
    assert "fixedRate <string> A steady interval from `anchor`" in trigger
    assert "ENUM: AtMostOnce AtLeastOnce ExactlyOnce" in explain("twt.spec.delivery.guarantee")
    assert "The name that workers register" in explain("scheduledtasks.spec.handler")
