"""What the chart makes of its values: names, permissions, pods, and what it refuses. No cluster is needed."""

from __future__ import annotations

import ast
import json
import re
import runpy
from typing import Any

import pytest
import yaml
from tests.chart.rendering import CHART, NAMESPACE, RELEASE, Refused, find, helm, only, render

from tickwheel_operator.kinds import KINDS
from tickwheel_operator.kinds.descriptor import AnyKind
from tickwheel_operator.runtime.settings import Settings

ROOT = CHART.parents[1]
EVERYTHING: dict[str, Any] = {
    "networkPolicy": {"enabled": True},
    "metrics": {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "tls": {"mode": "certManager"},
}


def operator(values: dict[str, Any] | None = None) -> dict[str, Any]:
    """The operator's container."""
    [container] = only(render(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def flags(values: dict[str, Any] | None = None) -> dict[str, list[str]]:
    """The operator's flags."""
    found: dict[str, list[str]] = {}
    for argument in operator(values)["args"]:
        name, _, value = argument.partition("=")
        found.setdefault(name, []).append(value)
    return found


# --- the chart as a chart ---


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_helm_lint_finds_nothing(values: dict[str, Any]) -> None:
    helm("lint", "--strict", str(CHART), "-f", "-", stdin=json.dumps(values))


def test_the_readme_describes_every_value() -> None:
    assert runpy.run_path(str(CHART.parent / "document.py"))["main"](["--check"]) == 0


def test_every_value_is_in_the_schema_and_the_schema_has_no_others() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: dict[str, Any], node: dict[str, Any], path: str) -> None:
        names = node.get("properties")
        if names is None or path == ".global":
            return
        assert node["additionalProperties"] is False or path == ".global", path
        if path.startswith((".probes.", ".affinity", ".resources", ".updateStrategy.")) or not values:
            assert values.keys() <= names.keys(), path
            return
        assert values.keys() == names.keys(), path
        for name, value in values.items():
            if isinstance(value, dict):
                compare(value, names[name], f"{path}.{name}")

    compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"electoin": {}}, "electoin"),
        ({"election": {"leaseDurations": "3s"}}, "leaseDurations"),
        ({"election": {"leaseDuration": 15}}, "/election/leaseDuration"),
        ({"election": {"leaseDuration": "15"}}, "/election/leaseDuration"),
        ({"tls": {"mode": "own"}}, "/tls/mode"),
        ({"watchNamespaces": ["*"]}, "/watchNamespaces/0"),
        ({"watchNamespaces": "shops"}, "/watchNamespaces"),
        ({"replicas": "2"}, "/replicas"),
        ({"ledger": {"maxBytes": 268435456}}, "/ledger/maxBytes"),
        ({"resources": {"limit": {}}}, "limit"),
        ({"image": {"digest": "sha256:1"}}, "/image/digest"),
    ],
)
def test_a_value_that_is_wrong_is_refused_with_its_place(values: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused, match=re.escape(told)):
        render(values)


_MAY_BE_NULL = {
    "global", "enabled", "nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "podSecurityContext",
    "securityContext", "resources", "priorityClassName", "updateStrategy",
}  # fmt: skip
"""Those that Kubernetes has defaults for: null takes the chart's away."""


def test_a_value_that_is_taken_away_is_missed_by_the_schema() -> None:
    """Null removes a value of the chart's. What templates read then is nil, or zero: replicas, a port."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: dict[str, Any], node: dict[str, Any], path: str) -> None:
        if "properties" not in node or not values:
            return
        assert set(node["required"]) == values.keys() - (_MAY_BE_NULL if not path else set()), path
        for name in node["required"]:
            if isinstance(values[name], dict):
                compare(values[name], node["properties"][name], f"{path}.{name}")

    compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")


@pytest.mark.parametrize("path", ["watchNamespaces", "replicas", "gateway.port", "election", "probes.startup"])
def test_null_is_refused_with_the_name_of_the_value(path: str) -> None:
    *parents, name = path.split(".")
    values: dict[str, Any] = {name: None}
    for parent in reversed(parents):
        values = {parent: values}
    with pytest.raises(Refused, match=f"missing property '{name}'"):
        render(values)


def test_null_takes_away_what_kubernetes_has_defaults_for() -> None:
    render(dict.fromkeys(_MAY_BE_NULL))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"election": {"leaseDuration": "10s"}}, "election.leaseDuration (10s) must be more than"),
        ({"election": {"leaseDuration": "5s"}}, "election.leaseDuration (5s) must be more than"),
        ({"election": {"leaseDuration": "15500ms"}}, "a Lease has whole seconds"),
        ({"election": {"retryPeriod": "9s"}}, "election.renewDeadline (10s) must be more than 1.2 times"),
        ({"engine": {"attemptLease": "11m"}}, "engine.attemptLease is 11m"),
        ({"engine": {"attemptLease": "500ms"}}, "engine.attemptLease is 500ms"),
        ({"ledger": {"maxBytes": "1Mi"}}, "ledger.maxBytes is 1Mi"),
        ({"metrics": {"port": 8443}}, "are both 8443"),
        ({"tls": {"auto": {"caDays": 10}}}, "tls.auto.leafDays (30) may not be more"),
        ({"tls": {"auto": {"publishMinutes": 200000}}}, "tls.auto.publishMinutes (200000)"),
    ],
)
def test_what_the_operator_would_refuse_the_chart_refuses(values: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused, match=re.escape(told)):
        render(values)
    group, changed = next(iter(values.items()))
    if group != "tls":
        [(name, value)] = changed.items()
        assert Settings(**_setting(group, name, value)).faults() != []


def _setting(group: str, name: str, value: Any) -> dict[str, int]:
    """The operator's name and unit of a value."""
    if (group, name) == ("metrics", "port"):
        return {"metrics_port": value}
    if name == "maxBytes":
        return {"ledger_max_bytes": int(value.removesuffix("Mi")) * 1024 * 1024}
    unit = re.sub("[0-9]", "", value)
    snake = re.sub("([A-Z])", r"_\1", name).lower()
    return {f"{snake}_ms": int(value.removesuffix(unit)) * {"ms": 1, "s": 1_000, "m": 60_000}[unit]}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"podDisruptionBudget": {"maxUnavailable": 0}}, "/podDisruptionBudget/maxUnavailable"),
        ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "/podDisruptionBudget/maxUnavailable"),
        ({"terminationGracePeriodSeconds": 1}, "/terminationGracePeriodSeconds"),
        ({"fullnameOverride": "My_Release"}, "/fullnameOverride"),
        ({"nameOverride": "a b"}, "/nameOverride"),
        ({"tls": {"certManager": {"duration": "720h"}}}, "tls.certManager.renewBefore (720h) must be less"),
        (
            {"metrics": {"serviceMonitor": {"enabled": True}, "service": {"enabled": False}}},
            "metrics.serviceMonitor.enabled needs metrics.service.enabled",
        ),
        ({"metrics": {"serviceMonitor": {"interval": "5s"}}}, "scrapeTimeout (10s) may not be longer"),
        ({"updateStrategy": {"rollingUpdate": {"maxSurge": 0}}}, "maxUnavailable and maxSurge are both 0"),
        ({"test": {"namespace": "other"}, "watchNamespaces": ["shops"]}, "test.namespace is other"),
        ({"podLabels": {"app.kubernetes.io/instance": "x"}}, "podLabels has the label app.kubernetes.io/instance"),
        ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "commonLabels has the label app.kubernetes.io/name"),
    ],
)
def test_values_that_could_not_work_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused, match=re.escape(told)):
        render(values)


def test_pods_can_be_recreated_without_what_is_for_rolling_updates() -> None:
    strategy = only(render({"updateStrategy": {"type": "Recreate"}}), "Deployment")["spec"]["strategy"]
    assert strategy == {"type": "Recreate"}


def test_an_umbrella_charts_values_pass() -> None:
    objects = render({"global": {"imageRegistry": "x", "imagePullSecrets": [{"name": "pull"}]}, "enabled": True})
    assert only(objects, "Deployment")["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_a_secret_of_ones_own_must_be_named() -> None:
    with pytest.raises(Refused, match=r"tls\.existingSecret\.name is needed"):
        render({"tls": {"mode": "existingSecret"}})


def test_what_the_notes_tell_to_type_names_what_was_installed() -> None:
    notes = helm("install", RELEASE, str(CHART), "-n", NAMESPACE, "--dry-run=client")
    notes = notes[notes.rindex("NOTES:") :]
    assert f"kubectl rollout status deployment/{RELEASE} -n {NAMESPACE}" in notes
    assert f"helm test {RELEASE} -n {NAMESPACE}" in notes
    assert "WARNING" not in notes


def test_notes_warn_of_one_replica_and_of_crds_that_go() -> None:
    arguments = ["--set", "replicas=1,crds.keep=false", "--dry-run=client"]
    notes = helm("install", RELEASE, str(CHART), "-n", NAMESPACE, *arguments)
    assert notes.count("WARNING") == 2


# --- CRDs ---


def test_the_crds_are_those_of_the_models_with_labels_and_kept() -> None:
    rendered = {o["metadata"]["name"]: o for o in find(render(), "CustomResourceDefinition")}
    sources = [yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml")]
    assert rendered.keys() == {source["metadata"]["name"] for source in sources}
    for source in sources:
        found = rendered[source["metadata"]["name"]]
        assert found["spec"] == source["spec"]
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert found["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASE


def test_crds_can_be_left_out_or_go_with_the_release() -> None:
    assert find(render({"crds": {"enabled": False}}), "CustomResourceDefinition") == []
    [first, *_] = find(render({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "annotations" not in first["metadata"]


# --- the operator's pod ---


def test_every_setting_of_the_operator_has_a_value_or_a_reason() -> None:
    """A setting that somebody adds must come to the chart, or be named here."""
    elsewhere = {
        "gateway_host": "a pod listens on all its addresses",
        "metrics_host": "a pod listens on all its addresses",
        "token_file": "for development",
        "kubeconfig": "the ServiceAccount's token is used",
    }
    lists = {"watchNamespaces": ["shops"], "workerServiceAccounts": ["*-worker"]}
    own = flags({**lists, "tls": {"additionalNames": ["gateway.example.com"]}})
    files = flags({"tls": {"mode": "existingSecret", "existingSecret": {"name": "own"}}})
    given = {name.removeprefix("--").replace("-", "_") for name in own.keys() | files.keys()}
    assert given | elsewhere.keys() == set(Settings.__struct_fields__)
    assert given.isdisjoint(elsewhere)


def test_the_defaults_of_the_chart_are_the_operators() -> None:
    same = {
        "--gateway-port", "--metrics-port", "--lease-duration-ms", "--renew-deadline-ms", "--retry-period-ms",
        "--attempt-lease-ms", "--commit-interval-ms", "--max-backlog", "--ledger-max-bytes", "--checkpoint-segments",
        "--status-writes-per-second", "--log-level", "--tls-ca-days", "--tls-leaf-days", "--tls-publish-minutes",
    }  # fmt: skip
    found, defaults = flags(), Settings()
    for flag in same:
        default = getattr(defaults, flag.removeprefix("--").replace("-", "_"))
        assert type(default)(found[flag][0]) == default, flag


def test_durations_and_sizes_are_turned_into_the_operators_units() -> None:
    found = flags(
        {
            "election": {"leaseDuration": "3s", "renewDeadline": "2s", "retryPeriod": "400ms"},
            "engine": {"attemptLease": "1m"},
            "ledger": {"maxBytes": "2Gi"},
        }
    )
    assert found["--lease-duration-ms"] == ["3000"]
    assert found["--retry-period-ms"] == ["400"]
    assert found["--attempt-lease-ms"] == ["60000"]
    assert found["--ledger-max-bytes"] == [str(2 * 1024**3)]


def test_the_replicas_find_each_other_by_the_labels_and_the_container_that_the_operator_looks_for() -> None:
    from tickwheel_operator.election.peers import CONTAINER

    template = only(render(), "Deployment")["spec"]["template"]
    selector = dict(pair.split("=") for pair in flags()["--replica-selector"][0].split(","))
    assert selector.items() <= template["metadata"]["labels"].items()
    assert [container["name"] for container in template["spec"]["containers"]] == [CONTAINER]
    pod = only(render(), "Pod")  # of `helm test`: no replica
    assert not selector.items() <= pod["metadata"]["labels"].items()


def test_services_select_the_operators_pods_only() -> None:
    labels = only(render(), "Deployment")["spec"]["template"]["metadata"]["labels"]
    services = find(render(), "Service")
    assert [service["metadata"]["name"] for service in services] == [RELEASE, f"{RELEASE}-metrics"]
    for service in services:
        assert service["spec"]["selector"].items() <= labels.items()
        assert "app.kubernetes.io/component" in service["spec"]["selector"]


def test_a_changed_chart_version_changes_no_selector() -> None:
    """A Deployment's selector cannot be changed: an upgrade would fail."""
    deployment = only(render(), "Deployment")
    assert set(deployment["spec"]["selector"]["matchLabels"]) == {
        f"app.kubernetes.io/{part}" for part in ("name", "instance", "component")
    }


def test_workers_are_sent_to_the_service_by_a_name_that_the_certificate_has() -> None:
    assert flags()["--gateway-service-url"] == [f"https://{RELEASE}.{NAMESPACE}.svc:8443"]
    certificate = only(render(EVERYTHING), "Certificate", f"{RELEASE}-gateway")
    assert f"{RELEASE}.{NAMESPACE}.svc" in certificate["spec"]["dnsNames"]


@pytest.mark.parametrize("mode", ["certManager", "existingSecret"])
def test_certificates_of_others_are_mounted_and_read(mode: str) -> None:
    values = {"tls": {"mode": mode, "existingSecret": {"name": "own"}}}
    spec = only(render(values), "Deployment")["spec"]["template"]["spec"]
    [volume] = [volume for volume in spec["volumes"] if volume["name"] == "tls"]
    assert volume["secret"]["secretName"] == ("own" if mode == "existingSecret" else f"{RELEASE}-gateway-tls")
    [mount] = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "tls"]
    for flag in ("--tls-cert-file", "--tls-key-file", "--tls-ca-file"):
        assert flags(values)[flag][0].startswith(mount["mountPath"])


def test_a_lone_replica_may_be_drained() -> None:
    assert find(render({"replicas": 1}), "PodDisruptionBudget") == []
    assert find(render(), "PodDisruptionBudget")


def test_replicas_are_spread_each_update_by_itself() -> None:
    spec = only(render(), "Deployment")["spec"]["template"]["spec"]
    for constraint in spec["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"]["app.kubernetes.io/instance"] == RELEASE
        assert constraint["matchLabelKeys"] == ["pod-template-hash"]
    mine = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    spec = only(render({"topologySpreadConstraints": [mine]}), "Deployment")["spec"]["template"]["spec"]
    assert spec["topologySpreadConstraints"] == [mine]


def test_objects_of_ones_own_are_rendered() -> None:
    extra = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-one"}},
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-two\n",
    ]
    made = find(render({"extraObjects": extra, "test": {"enabled": False}}), "ConfigMap")
    names = [o["metadata"]["name"] for o in made]
    assert names == [f"{RELEASE}-one", f"{RELEASE}-two"]


def test_what_is_turned_off_is_not_rendered() -> None:
    off = {
        "rbac": {"create": False, "aggregate": False},
        "serviceAccount": {"create": False},
        "admission": {"enabled": False},
        "test": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "crds": {"enabled": False},
        "metrics": {"service": {"enabled": False}},
    }
    assert sorted(o["kind"] for o in render(off)) == ["Deployment", "Service"]


# --- labels and names ---


def test_all_objects_are_labelled_and_named_after_the_release() -> None:
    for o in render({**EVERYTHING, "commonLabels": {"team": "platform"}}, release="ops", namespace="jobs"):
        if o["kind"].startswith("ValidatingAdmission"):
            continue  # generated
        labels = o["metadata"]["labels"]
        assert labels["team"] == "platform", o["metadata"]["name"]
        assert labels["app.kubernetes.io/instance"] == "ops"
        if o["kind"] != "CustomResourceDefinition":
            assert "ops-tickwheel" in o["metadata"]["name"]
            assert o["metadata"].get("namespace") in ("jobs", None)


def test_a_long_name_of_a_release_makes_names_that_kubernetes_takes() -> None:
    for o in render(EVERYTHING, release="a" * 53):
        assert len(o["metadata"]["name"]) <= 63 or o["kind"].startswith(("ClusterRole", "Validating")), o["metadata"]


# --- permissions ---


def rules(objects: list[dict[str, Any]]) -> list[tuple[str, str, dict[str, Any]]]:
    """Kind and name of the role, and each rule."""
    roles = [o for o in objects if o["kind"] in ("Role", "ClusterRole")]
    return [(role["kind"], role["metadata"]["name"], rule) for role in roles for rule in role["rules"]]


@pytest.mark.parametrize("namespaces", [[], ["shops", "billing"]], ids=["cluster-wide", "namespaced"])
def test_no_role_has_a_wildcard_or_may_give_itself_more(namespaces: list[str]) -> None:
    for kind, name, rule in rules(render({"watchNamespaces": namespaces})):
        for field in ("apiGroups", "resources", "verbs"):
            assert "*" not in rule[field], (kind, name)
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
        assert "rbac.authorization.k8s.io" not in rule["apiGroups"]
    for role in find(render({"watchNamespaces": namespaces}), "Role"):
        assert len(role["rules"]) == len({json.dumps(rule) for rule in role["rules"]}), "a rule stands there twice"


def test_secrets_are_touched_in_the_operators_own_namespace_only_and_one_by_name() -> None:
    found = [(kind, name, rule) for kind, name, rule in rules(render()) if "secrets" in rule["resources"]]
    assert {(kind, name) for kind, name, _ in found} == {("Role", RELEASE)}
    for _, _, rule in found:
        assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["tickwheel-ca"]


@pytest.mark.parametrize("values", [EVERYTHING, {"tls": {"mode": "existingSecret", "existingSecret": {"name": "x"}}}])
def test_with_certificates_of_others_no_secret_is_touched(values: dict[str, Any]) -> None:
    assert not [rule for _, _, rule in rules(render(values)) if "secrets" in rule["resources"]]


def test_in_namespaced_mode_only_reviews_and_a_look_at_other_releases_are_cluster_wide() -> None:
    objects = render({"watchNamespaces": ["shops", "billing"], "rbac": {"aggregate": False}})
    cluster = [rule for kind, _, rule in rules(objects) if kind == "ClusterRole"]
    of_leases, of_reviews = (
        [rule for rule in cluster if ("leases" in rule["resources"]) is leases] for leases in (True, False)
    )
    assert {name for rule in of_reviews for name in rule["resources"]} == {"tokenreviews", "subjectaccessreviews"}
    assert {verb for rule in of_reviews for verb in rule["verbs"]} == {"create"}
    assert [(rule["verbs"], rule["resourceNames"]) for rule in of_leases] == [(["get"], ["tickwheel-partition-0"])]
    serving = [o["metadata"]["namespace"] for o in find(objects, "Role") if o["metadata"]["name"].endswith("-serving")]
    assert serving == ["shops", "billing"]


def test_a_namespace_gives_the_same_rights_in_both_modes() -> None:
    everywhere = next(o for o in find(render(), "ClusterRole") if o["metadata"]["name"].endswith(f"-{RELEASE}"))
    objects = render({"watchNamespaces": ["shops"]})
    here = next(o for o in find(objects, "Role") if o["metadata"]["name"].endswith("-serving"))
    reviews = next(o for o in find(objects, "ClusterRole") if o["metadata"]["name"].endswith(f"-{RELEASE}"))
    assert everywhere["rules"] == [*reviews["rules"], *here["rules"]]


def test_two_releases_have_cluster_roles_of_their_own() -> None:
    one, other = (
        {o["metadata"]["name"] for o in find(render({"rbac": {"aggregate": False}}, namespace=n), "ClusterRole")}
        for n in ("one", "two")
    )
    assert one.isdisjoint(other)


def test_people_get_the_kinds_by_the_clusters_own_roles_and_the_ledger_is_for_admins() -> None:
    roles = {o["metadata"]["name"].removeprefix(f"{RELEASE}-"): o for o in find(render(), "ClusterRole")}
    for name, verbs in {"view": {"get", "list", "watch"}, "admin": {"get", "list"}}.items():
        assert roles[name]["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{name}"] == "true"
        assert {verb for rule in roles[name]["rules"] for verb in rule["verbs"]} == verbs
    assert {verb for rule in roles["edit"]["rules"] for verb in rule["verbs"]}.isdisjoint({"get", "list", "watch"})
    for name in ("view", "edit"):
        assert not [rule for rule in roles[name]["rules"] if "ledgersegments" in rule["resources"]]
        assert not [r for rule in roles[name]["rules"] for r in rule["resources"] if r.endswith("/status")]


def verbs_for(role: dict[str, Any], resource: str) -> set[str]:
    return {
        verb
        for rule in role["rules"]
        if "tickwheel.io" in rule["apiGroups"] and resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_operator_watches_and_marks_every_kind_and_people_may_use_it(kind: AnyKind) -> None:
    roles = {o["metadata"]["name"].removeprefix(f"{RELEASE}-"): o for o in find(render(), "ClusterRole")}
    operator = next(role for name, role in roles.items() if name.endswith(RELEASE))
    assert verbs_for(operator, kind.plural) >= {"get", "list", "watch"}
    assert verbs_for(operator, f"{kind.plural}/status") == {"patch"}
    assert verbs_for(operator, kind.plural).isdisjoint({"update", "patch"}), "specs are people's"
    assert verbs_for(roles["view"], kind.plural) == {"get", "list", "watch"}
    assert verbs_for(roles["edit"], kind.plural) == {"create", "update", "patch", "delete", "deletecollection"}


def test_the_pod_of_helm_test_may_do_what_it_does_and_no_more() -> None:
    role = only(render(), "Role", f"{RELEASE}-test")
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"create", "get", "delete"}
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {
        "taskruns", "scheduledtasks", "workerpools"
    }  # fmt: skip


def test_all_that_helm_test_makes_is_removed() -> None:
    hooks = [o for o in render() if "helm.sh/hook" in o["metadata"].get("annotations", {})]
    assert {"Pod", "WorkerPool", "ScheduledTask", "Role", "RoleBinding"} <= {o["kind"] for o in hooks}
    for hook in hooks:
        policy = hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(",")
        assert set(policy) == {"before-hook-creation", "hook-succeeded"}


def test_in_namespaced_mode_the_test_runs_where_the_operator_serves() -> None:
    objects = render({"watchNamespaces": ["shops"]})
    for kind in ("WorkerPool", "ScheduledTask"):
        assert only(objects, kind)["metadata"]["namespace"] == "shops"
    assert only(objects, "Pod")["metadata"]["namespace"] == NAMESPACE


# --- monitoring ---


def named_metrics(text: str) -> set[str]:
    return set(re.findall(r"\btickwheel_[a-z0-9_]+", text))


def known_metrics() -> set[str]:
    from tickwheel_operator.projection.metrics import METRICS

    series = set()
    for metric in METRICS:
        parts = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        series |= {f"{metric.shown}{part}" for part in parts}
    return series


@pytest.mark.parametrize("file", ["alerts.yaml", "dashboard.json"])
def test_alerts_and_dashboard_ask_for_metrics_that_there_are(file: str) -> None:
    named = named_metrics((CHART / "files" / file).read_text())
    assert named
    assert named <= known_metrics()


def test_the_rules_watch_the_job_of_the_releases_own_metrics_service() -> None:
    objects = render(EVERYTHING, release="ops")
    [group] = only(objects, "PrometheusRule")["spec"]["groups"]
    service = only(objects, "Service", "ops-tickwheel-metrics")
    for rule in group["rules"]:
        assert f'job="{service["metadata"]["name"]}"' in rule["expr"]
        assert "tickwheel-metrics" not in rule["expr"].replace("ops-tickwheel-metrics", "")
    monitor = only(objects, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    gateway = only(objects, "Service", "ops-tickwheel")
    assert not monitor["selector"]["matchLabels"].items() <= gateway["metadata"]["labels"].items()


def test_alerts_can_be_left_out_and_labelled() -> None:
    values = {"enabled": True, "disabled": ["TickwheelLate"], "alertLabels": {"team": "jobs"}}
    [group] = only(render({"metrics": {"prometheusRule": values}}), "PrometheusRule")["spec"]["groups"]
    assert "TickwheelLate" not in [rule["alert"] for rule in group["rules"]]
    assert all(rule["labels"]["team"] == "jobs" for rule in group["rules"])


def test_every_alert_has_a_section_in_the_runbook() -> None:
    [group] = only(render(EVERYTHING), "PrometheusRule")["spec"]["groups"]
    lines = (ROOT / "docs" / "runbook.md").read_text().splitlines()
    sections = {line[3:].lower() for line in lines if line.startswith("## ")}
    for rule in group["rules"]:
        assert rule["annotations"]["runbook_url"].partition("#")[2] in sections, rule["alert"]


def test_the_dashboard_is_in_its_config_map_as_it_stands() -> None:
    config_map = only(render(EVERYTHING), "ConfigMap", f"{RELEASE}-dashboard")
    assert json.loads(config_map["data"]["tickwheel.json"]) == json.loads((CHART / "files/dashboard.json").read_text())
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"


# --- files that are shipped as text ---


def test_the_test_hook_has_the_script_and_the_handler_as_they_stand() -> None:
    for name, file in ((f"{RELEASE}-test", "run.py"), (f"{RELEASE}-test-handlers", "handlers.py")):
        text = only(render(), "ConfigMap", name)["data"][file]
        assert text.strip() == (CHART / "files" / "test" / file).read_text().strip()
        ast.parse(text)


def test_the_version_of_the_chart_is_the_projects() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
