"""The admission policies on a real API server: what the operator would stall, `kubectl apply` refuses, all at once.

The policies are bound to namespaces with the label `admission=on`, so that the other tests of this session never meet
them, and made strict (`failurePolicy: Fail`), so that an expression which cannot be evaluated shows.
"""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.installation import create_namespace
from tests.integration.soak.scenario import until

from tickwheel_cluster import Access, find_binaries
from tickwheel_operator.admission.policies import documents as policies
from tickwheel_operator.api import KINDS, FieldFault, InvalidManifest, WorkerPool, parse, unsupported
from tickwheel_operator.api import documents as read
from tickwheel_operator.api.nesting import MOST_LEVELS
from tickwheel_operator.pools.constraints import faults as template_faults

ROOT = Path(__file__).resolve().parents[2]
BAD = {path.stem: path for path in sorted((Path(__file__).parent / "manifests" / "bad").glob("*.yaml"))}
STALLED = [name for name, path in BAD.items() if path.read_text().startswith("# expect: stalled")]
ONLY_THE_OPERATOR_KNOWS = {"calendar-cron": "a cron expression inside a list"}
"""Manifests that the policies let in, and why CEL cannot tell."""

PLURALS = {kind.kind_name(): kind.presentation.plural for kind in KINDS}
NAMESPACE = "admission"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture(scope="module")
def server(cluster: Access) -> Iterator[Access]:
    """The API server with the policies at work in `NAMESPACE`."""
    create_namespace(cluster, NAMESPACE)
    made = []
    for document in policies():
        plural = "validatingadmissionpolicies"
        if document["kind"].endswith("Binding"):
            plural = "validatingadmissionpolicybindings"
            document["spec"]["matchResources"] = {"namespaceSelector": {"matchLabels": {"admission": "on"}}}
        else:
            document["spec"]["failurePolicy"] = "Fail"
        cluster.request("POST", f"{_ADMISSION}/{plural}", document)
        made.append(f"{_ADMISSION}/{plural}/{document['metadata']['name']}")
    try:
        switch(cluster, on=True)
        for kind in (
            "AlertChannel",
            "WorkerPool",
            "TaskRun",
            "ScheduledTask",
        ):  # the API server learns of each by watch
            until_refused(cluster, kind)
        yield cluster
    finally:
        for path in reversed(made):
            cluster.request("DELETE", path)


def switch(cluster: Access, *, on: bool) -> None:
    """The policies look at the test's namespace, or do not."""
    namespace = cluster.request("GET", f"/api/v1/namespaces/{NAMESPACE}")
    namespace["metadata"].setdefault("labels", {})["admission"] = "on" if on else "off"
    cluster.request("PUT", f"/api/v1/namespaces/{NAMESPACE}", namespace)


def until_refused(cluster: Access, kind: str) -> None:
    probes: dict[str, dict[str, Any]] = {
        "AlertChannel": {"urlsFrom": {"secretKeyRef": {"name": "ops", "key": "urls"}}},
        "WorkerPool": {"lanes": [{"name": "short"}]},
        "TaskRun": {"task": "t", "parameters": {"text": "x" * 70_000}},
        "ScheduledTask": {"pool": "p", "handler": "h", "trigger": {"cron": "61 * * * *"}},
    }
    until(f"anything of {kind} to be refused", lambda: refusal(cluster, manifest(kind, "probe", probes[kind])))


def manifest(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "tickwheel.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def path_of(document: dict[str, Any]) -> str:
    return f"/apis/tickwheel.io/v1alpha1/namespaces/{NAMESPACE}/{PLURALS[document['kind']]}"


def refusal(server: Access, document: dict[str, Any], *, method: str = "POST") -> str:
    """What the API server says to the document, in a dry run; nothing if it lets it in."""
    path = path_of(document) + (f"/{document['metadata']['name']}" if method == "PUT" else "")
    try:
        server.request(method, f"{path}?dryRun=All&fieldValidation=Strict", document)
    except urllib.error.HTTPError as error:
        if error.code not in (403, 422):
            raise
        return str(json.loads(error.read())["message"])
    return ""


def operator_faults(document: dict[str, Any]) -> list[FieldFault]:
    """What the operator's `Stalled` condition would list."""
    try:
        resource = parse(document)
    except InvalidManifest as error:
        return error.faults
    faults = unsupported(resource)
    return faults or (template_faults(resource) if isinstance(resource, WorkerPool) else [])


def kubectl(kubeconfig: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(find_binaries() / "kubectl"), f"--kubeconfig={kubeconfig}", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", STALLED)
def test_what_the_operator_would_stall_is_refused_at_apply_time_with_the_same_field(name: str, server: Access) -> None:
    document = json.loads(json.dumps(next(iter(read(BAD[name].read_text(encoding="utf-8")))).body))
    faults = operator_faults(document)
    assert faults
    document["metadata"]["namespace"] = NAMESPACE
    message = refusal(server, document)
    if name in ONLY_THE_OPERATOR_KNOWS:
        assert message == "", f"no longer true: {ONLY_THE_OPERATOR_KNOWS[name]}"
    else:
        assert [fault.path for fault in faults if f"{fault.path}: " not in message] == []


def test_a_person_is_told_all_that_is_wrong_at_once(server: Access) -> None:
    text = """
        apiVersion: tickwheel.io/v1alpha1
        kind: ScheduledTask
        metadata: {name: many-faults, namespace: admission}
        spec:
          pool: shops
          handler: sync
          trigger: {cron: "61 24 * FOO *", timeZone: europe/berlin}
          delivery: {guarantee: ExactlyOnce, timeout: 9999d}
          orderingKey: /shop
          priority: 5
    """
    answer = kubectl(server.admin_kubeconfig, "apply", "--dry-run=server", "-f", "-", stdin=text)
    assert answer.returncode == 1
    for words in (
        "spec.trigger.cron: minute field: '61' is out of range or cannot be read; allowed: 0-59",
        "hour field: '24' is out of range or cannot be read; allowed: 0-23",
        "month field: 'FOO' is out of range or cannot be read; allowed: 1-12 or JAN-DEC",
        "spec.trigger.timeZone: 'europe/berlin' is not a time zone of the IANA data (case matters); "
        "did you mean Europe/Berlin?",
        "spec.delivery.guarantee: guarantee ExactlyOnce is not supported by this version of Tickwheel; use AtMostOnce",
        "spec.delivery.timeout: '9999d' is not allowed; 1ms to 3650d are allowed, for example 90s or 1h30m",
        "spec.orderingKey: orderingKey /shop is not supported by this version of Tickwheel",
        "spec.priority: priority 5 is not supported by this version of Tickwheel; leave it at 0",
    ):
        assert words in answer.stderr


@pytest.mark.parametrize(
    ("kind", "spec", "path"),
    [
        ("ScheduledTask", {"pool": "p", "handler": "h", "parameters": {"a": "@"}}, "spec.parameters"),
        ("TaskRun", {"task": "t", "parameters": {"b": [{"a": "@"}]}}, "spec.parameters"),
        ("WorkerPool", {"template": {"spec": {"affinity": {"a": "@"}}}}, "spec.template.spec"),
    ],
)
def test_an_object_that_python_could_not_read_is_refused_before_it_hides_all_others(
    kind: str, spec: dict[str, Any], path: str, server: Access
) -> None:
    document = json.dumps(manifest(kind, "deep", spec))
    around = document.partition('"@"')[0]
    levels = MOST_LEVELS - around.count("{") - around.count("[") + around.count("}") + around.count("]")
    told = f"{path}: is nested more than {MOST_LEVELS} levels deep"
    for deeper, refused in ((0, False), (1, True), (5_000, True), (9_800, True)):
        nested = "[" * (levels + deeper) + "]" * (levels + deeper)
        context, headers = server._admin()
        request = urllib.request.Request(
            f"{server.url}{path_of(json.loads(document))}?dryRun=All",
            data=document.replace('"@"', nested).encode(),
            method="POST",
            headers={"Content-Type": "application/json", **headers},
        )
        message = ""
        try:
            urllib.request.urlopen(request, context=context, timeout=60).close()
        except urllib.error.HTTPError as error:
            message = str(json.loads(error.read())["message"])
        assert (told in message) is refused, (deeper, message[:200])
        if deeper < 100:
            faults = operator_faults(json.loads(document.replace('"@"', nested)))
            assert any(fault.message == told.partition(": ")[2] for fault in faults) is refused


TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "shops"}},
    "spec": {
        "hostNetwork": True,
        "hostIPC": True,
        "nodeName": "n1",
        "serviceAccountName": "root",
        "securityContext": {"runAsNonRoot": True},
        "volumes": [
            {"name": "own", "emptyDir": {}},
            {"name": "node", "hostPath": {"path": "/"}},
            {"name": "tickwheel"},
        ],
        "initContainers": [{"name": "init", "securityContext": {"privileged": True}}],
        "containers": [
            {
                "name": "sidecar",
                "ports": [{"containerPort": 80}, {"hostPort": 80}],
                "env": [{"name": "TICKWHEEL_POOL"}],
            },
            {
                "name": "worker",
                "env": [{"name": "SHOP", "value": "a"}, {"name": "TICKWHEEL_ENDPOINT", "value": "b"}],
                "volumeMounts": [{"name": "own", "mountPath": "/run/tickwheel/"}, {"name": "node", "mountPath": "/n"}],
                "securityContext": {
                    "allowPrivilegeEscalation": True,
                    "capabilities": {"add": ["NET_BIND_SERVICE", "SYS_ADMIN", "NET_RAW"]},
                },
            },
        ],
    },
}


def test_a_template_is_refused_for_each_field_for_which_the_operator_refuses_it(server: Access) -> None:
    document = manifest("WorkerPool", "shops", {"access": {"serviceAccounts": ["w"]}, "template": TEMPLATE})
    message = refusal(server, document)
    faults = operator_faults(document)
    assert len(faults) == 12
    assert [fault.path for fault in faults if f"{fault.path}: " not in message] == []
    assert message.count("spec.template") == len(faults), "and for nothing else"


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("examples/quickstart/*.yaml"), *ROOT.glob("examples/cluster/**/*.yaml")],
    ids=lambda path: path.name,
)
def test_the_examples_are_let_in(path: Path, server: Access) -> None:
    for document in (found.body for found in read(path.read_text(encoding="utf-8"))):
        if document["kind"] in PLURALS:
            document["metadata"]["namespace"] = NAMESPACE
            assert refusal(server, document) == ""


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("WorkerPool", {}),
        ("ScheduledTask", {"pool": "p", "handler": "h"}),
        ("ScheduledTask", {"pool": "p", "handler": "h", "parameters": {"text": "x" * 60_000, "n": None, "l": [1]}}),
        ("ScheduledTask", {"pool": "p", "handler": "h", "trigger": {"fixedRate": "10ms"}}),
        ("ScheduledTask", {"pool": "p", "handler": "h", "trigger": {"cron": "@daily", "timeZone": "Asia/Shanghai"}}),
        *(
            ("ScheduledTask", {"pool": "p", "handler": "h", "trigger": {"cron": cron}})
            for cron in (
                "*/10 * * * * *", "0 9 * * mon-fri", " 0\t9  1,15w,L * ? ", "H H(1-4) * jan,7 FRI#2", "0 0 L-3 * 5L",
                "0 0 29 2 *", "0 0 30 2 MON", "0 22-4/2 ? * FRI-MON", ",".join(map(str, range(60))) + " * * * *",
            )
        ),
        ("TaskRun", {"task": "t", "parameters": {"region": "south"}, "idempotencyKey": "order-4711"}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_what_the_operator_can_do_is_let_in(kind: str, spec: dict[str, Any], server: Access) -> None:
    document = manifest(kind, "good", spec)
    assert operator_faults(document) == []
    assert refusal(server, document) == ""


def test_the_largest_objects_are_looked_at_within_the_cost_limit(server: Access) -> None:
    many = {f"key-{number:04}": ["x" * 10] * 60 for number in range(1_000)}
    task = manifest("ScheduledTask", "large", {"pool": "p", "handler": "h", "parameters": many})
    assert "spec.parameters: has more than 65536 bytes" in refusal(server, task)
    container = {"env": [{"name": f"V{number}", "value": "x" * 50} for number in range(200)]}
    containers = [{"name": f"c{number}", **container} for number in range(20)]
    pool = manifest("WorkerPool", "large", {"template": {"spec": {"containers": containers}}})
    assert refusal(server, pool) == ""


def test_an_object_from_before_the_policy_may_change_but_not_get_worse(server: Access) -> None:
    task = manifest(
        "ScheduledTask", "old", {"pool": "p", "handler": "h", "priority": 5, "trigger": {"cron": "61 * * * *"}}
    )
    switch(server, on=False)
    until("the policies to look elsewhere", lambda: not refusal(server, task))
    stored = server.request("POST", path_of(task), task)
    switch(server, on=True)
    until_refused(server, "ScheduledTask")

    def put(**spec: Any) -> str:
        labelled = {**stored["metadata"], "labels": {"a": "b"}, "finalizers": ["tickwheel.io/test"]}
        return refusal(server, {**stored, "metadata": labelled, "spec": {**stored["spec"], **spec}}, method="PUT")

    try:
        assert put() == "", "labels and finalizers"
        assert put(suspend=True) == "", "the faults are the old ones"
        assert put(priority=0) == "", "one of them is mended"
        worse = put(lane="cpu")
        assert "spec.lane: lane cpu is not supported" in worse
        assert "spec.priority" not in worse, "the old faults are not what this change is refused for"
        assert "'62' is out of range" in put(trigger={"cron": "62 * * * *"})
        stored["status"] = {"observedGeneration": 1}
        server.request("PUT", f"{path_of(task)}/old/status", stored)
    finally:
        server.request("DELETE", f"{path_of(task)}/old")


def test_who_makes_a_pool_with_pods_must_be_allowed_to_make_deployments(server: Access) -> None:
    accounts = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
    server.request("POST", accounts, {"metadata": {"name": "editor"}})

    def grant(name: str, group: str, resource: str, *verbs: str) -> None:
        rules = [{"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}]
        server.request("POST", f"{rbac}/roles", {"metadata": {"name": name}, "rules": rules})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        subjects = [{"kind": "ServiceAccount", "name": "editor", "namespace": NAMESPACE}]
        binding = {"metadata": {"name": name}, "roleRef": role, "subjects": subjects}
        server.request("POST", f"{rbac}/rolebindings", binding)

    def apply(spec: dict[str, Any], *more: str) -> str:
        text = json.dumps(manifest("WorkerPool", "editors", spec))
        return kubectl(editor, "apply", "-f", "-", *more, stdin=text).stderr

    grant("pools", "tickwheel.io", "workerpools", "get", "create", "patch", "delete")
    editor = server.service_account_kubeconfig(NAMESPACE, "editor")
    pods = {"template": {"spec": {"containers": [{"name": "worker", "image": "tickwheel.io/worker:0.1.0"}]}}}
    # The authorizer learns of grants by a watch.
    until("the grant of pools", lambda: "cannot" not in apply({}, "--dry-run=server"))
    words = "must be allowed to create deployments.apps in this namespace"
    assert words in apply(pods)
    assert apply({"slots": 4}) == "", "a pool whose workers run elsewhere"
    assert words in apply({"slots": 4, **pods}), "nor by an update"
    grant("deployments", "apps", "deployments", "create")
    until("the grant of Deployments", lambda: words not in apply(pods, "--dry-run=server"))
    assert apply(pods) == ""
    server.request("DELETE", f"{rbac}/rolebindings/deployments")
    more = {"template": {"spec": {"containers": [{"name": "worker", "image": "another"}]}}}
    until("its end", lambda: words in apply(more, "--dry-run=server"))
    assert apply({"slots": 2, **pods}) == "", "the template stays as it is"
    assert kubectl(editor, "delete", "-n", NAMESPACE, "workerpools.tickwheel.io", "editors").stderr == ""


def test_the_policy_file_is_what_the_chart_installs(server: Access) -> None:
    chart = yaml.safe_load_all((ROOT / "charts" / "tickwheel" / "files" / "admission.yaml").read_text(encoding="utf-8"))
    assert list(chart) == policies()
