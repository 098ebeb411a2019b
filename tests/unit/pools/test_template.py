"""The Deployment of a pool: what is added to the user's template, and what is left as it is."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.pools.builders import NAMESPACE, a_pool, worker

from tickwheel_operator.api import WorkerPool
from tickwheel_operator.pools.template import Surroundings, deployment, selector

AROUND = Surroundings(endpoint="https://tickwheel.tickwheel-system.svc:8443", has_ca=True)


def made(pool: WorkerPool, *, around: Surroundings = AROUND, replicas: int = 3) -> dict[str, Any]:
    return deployment(pool, around, replicas)


def pod(pool: WorkerPool, **arguments: Any) -> dict[str, Any]:
    spec: dict[str, Any] = made(pool, **arguments)["spec"]["template"]["spec"]
    return spec


def variables(container: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") or entry["valueFrom"] for entry in container["env"]}


def test_the_deployment_is_the_pools_own_and_its_pods_are_found_by_the_pools_label() -> None:
    manifest = made(a_pool(replicas=3))
    assert manifest["metadata"]["name"] == "shop-workers"
    assert manifest["metadata"]["namespace"] == NAMESPACE
    assert manifest["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "tickwheel.io/v1alpha1",
            "kind": "WorkerPool",
            "name": "shop",
            "uid": "uid-1",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    assert manifest["spec"]["replicas"] == 3
    assert manifest["spec"]["selector"] == {"matchLabels": {"tickwheel.io/pool": "shop"}}
    assert manifest["spec"]["template"]["metadata"]["labels"]["tickwheel.io/pool"] == "shop"
    assert selector("shop") == "tickwheel.io/pool=shop"


def test_the_pools_labels_and_annotations_reach_its_deployment_but_no_marks_of_tools() -> None:
    pool = a_pool()
    mine = {"team": "payments", "example.com/cost": "7", "app.kubernetes.io/part-of": "shop"}
    marks = {
        "app.kubernetes.io/instance": "argo-app",
        "app.kubernetes.io/managed-by": "Helm",
        "applyset.kubernetes.io/part-of": "x",
        "argocd.argoproj.io/instance": "x",
        "helm.sh/chart": "x",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "kustomize.toolkit.fluxcd.io/name": "x",
        "meta.helm.sh/release-name": "x",
        "objectset.rio.cattle.io/hash": "x",
        "tickwheel.io/pool": "another",
    }
    metadata = pool.metadata.model_copy(update={"labels": mine | marks, "annotations": {"note": "x", **marks}})
    manifest = made(pool.model_copy(update={"metadata": metadata}))
    found = manifest["metadata"]
    assert mine.items() <= found["labels"].items()
    assert found["labels"]["app.kubernetes.io/instance"] == "shop"
    assert found["labels"]["app.kubernetes.io/managed-by"] == "tickwheel"
    assert found["labels"]["tickwheel.io/pool"] == "shop"
    assert not {key for key in marks if not key.startswith(("app.", "tickwheel"))} & found["labels"].keys()
    # `app.kubernetes.io/` are labels; as annotations nobody goes by them.
    assert found["annotations"].keys() - {key for key in marks if key.startswith("app.")} == {"note"}
    # A change of them does not roll the pods.
    assert manifest["spec"] == made(pool)["spec"]


def test_no_two_pools_share_a_deployment() -> None:
    names = [made(a_pool(name=name))["metadata"]["name"] for name in ("shop", "shop-workers", "shop-workers-workers")]
    assert len(set(names)) == 3


def test_a_rolling_update_never_goes_below_the_number_of_workers() -> None:
    strategy = made(a_pool())["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}}


def test_the_users_labels_and_annotations_are_kept_and_win_over_the_recommended_ones() -> None:
    metadata = {"labels": {"team": "a", "app.kubernetes.io/name": "shop"}, "annotations": {"note": "x"}}
    made_metadata = made(a_pool(metadata=metadata))["spec"]["template"]["metadata"]
    assert made_metadata["labels"]["team"] == "a"
    assert made_metadata["labels"]["app.kubernetes.io/name"] == "shop"
    assert made_metadata["labels"]["tickwheel.io/pool"] == "shop"
    assert made_metadata["annotations"] == {"note": "x"}


def test_the_worker_is_told_all_that_it_must_know() -> None:
    (container,) = pod(a_pool(slots=8, drainTimeout="1m30s"))["containers"]
    told = variables(container)
    assert told["TICKWHEEL_ENDPOINT"] == "https://tickwheel.tickwheel-system.svc:8443"
    assert told["TICKWHEEL_POOL"] == "shop"
    assert told["TICKWHEEL_TOKEN_FILE"] == "/var/run/tickwheel/token"
    assert told["TICKWHEEL_CA_FILE"] == "/var/run/tickwheel/ca.crt"
    assert told["TICKWHEEL_SLOTS"] == "8"
    assert told["TICKWHEEL_DRAIN_TIMEOUT"] == "90"
    fields = {name: told[f"TICKWHEEL_{name}"]["fieldRef"]["fieldPath"] for name in ("NAMESPACE", "WORKER_NAME", "ZONE")}
    assert fields == {
        "NAMESPACE": "metadata.namespace",
        "WORKER_NAME": "metadata.name",
        "ZONE": "metadata.labels['topology.kubernetes.io/zone']",
    }


@pytest.mark.parametrize(("timeout", "seconds"), [("0s", "0"), ("500ms", "0.5"), ("24h", "86400"), ("1s1ms", "1.001")])
def test_the_drain_limit_is_told_in_seconds_that_the_sdk_reads(timeout: str, seconds: str) -> None:
    (container,) = pod(a_pool(drainTimeout=timeout))["containers"]
    assert variables(container)["TICKWHEEL_DRAIN_TIMEOUT"] == seconds


def test_the_token_and_the_authority_are_one_volume() -> None:
    spec = pod(a_pool())
    (volume,) = spec["volumes"]
    assert volume["projected"]["sources"] == [
        {"serviceAccountToken": {"audience": "tickwheel", "expirationSeconds": 3600, "path": "token"}},
        {"configMap": {"name": "tickwheel-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]
    (mount,) = spec["containers"][0]["volumeMounts"]
    assert mount == {"name": volume["name"], "mountPath": "/var/run/tickwheel", "readOnly": True}


def test_without_an_authority_none_is_mounted_or_named() -> None:
    spec = pod(a_pool(), around=Surroundings(endpoint="http://gateway", has_ca=False))
    assert len(spec["volumes"][0]["projected"]["sources"]) == 1
    assert "TICKWHEEL_CA_FILE" not in variables(spec["containers"][0])


def test_the_users_own_variables_volumes_and_mounts_stay_and_may_refer_to_ours() -> None:
    container = worker(
        env=[{"name": "WHO", "value": "$(TICKWHEEL_WORKER_NAME)"}, {"name": "TICKWHEEL_ZONE", "value": "mine"}],
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
    )
    spec = pod(a_pool(container, pod={"volumes": [{"name": "data", "emptyDir": {}}]}))
    (made_worker,) = spec["containers"]
    names = [entry["name"] for entry in made_worker["env"]]
    assert names.index("TICKWHEEL_WORKER_NAME") < names.index("WHO")
    assert names.count("TICKWHEEL_ZONE") == 1
    assert variables(made_worker)["TICKWHEEL_ZONE"] == "mine"
    assert [volume["name"] for volume in spec["volumes"]] == ["data", "tickwheel"]
    assert [mount["name"] for mount in made_worker["volumeMounts"]] == ["data", "tickwheel"]


def test_the_worker_is_the_container_of_that_name_else_the_first() -> None:
    sidecar = {"name": "proxy", "image": "proxy:1"}
    named = pod(a_pool(sidecar, worker()))["containers"]
    assert "env" not in named[0]
    assert "TICKWHEEL_POOL" in variables(named[1])
    first = pod(a_pool({"name": "main", "image": "shop:1"}, sidecar))["containers"]
    assert "TICKWHEEL_POOL" in variables(first[0])
    assert "env" not in first[1]


@pytest.mark.parametrize(("given", "grace"), [(None, 90), (10, 90), (600, 600)])
def test_the_grace_outlasts_the_drain_limit(given: int | None, grace: int) -> None:
    extra = {} if given is None else {"terminationGracePeriodSeconds": given}
    assert pod(a_pool(pod=extra, drainTimeout="60s"))["terminationGracePeriodSeconds"] == grace


def test_the_drain_hook_is_added_where_the_user_has_none() -> None:
    hook = {"exec": {"command": ["python3", "-m", "tickwheel", "drain"]}}
    after = {"exec": {"command": ["warm-up"]}}
    mine = {"sleep": {"seconds": 1}}
    assert pod(a_pool())["containers"][0]["lifecycle"] == {"preStop": hook}
    both = pod(a_pool(worker(lifecycle={"postStart": after})))["containers"][0]["lifecycle"]
    assert both == {"preStop": hook, "postStart": after}
    assert pod(a_pool(worker(lifecycle={"preStop": mine})))["containers"][0]["lifecycle"] == {"preStop": mine}


def test_a_pod_is_ready_once_its_worker_is_registered_and_is_never_restarted_for_waiting() -> None:
    (container,) = pod(a_pool())["containers"]
    probe = container["startupProbe"]
    assert probe["tcpSocket"] == {"port": int(variables(container)["TICKWHEEL_READY_PORT"])}
    assert probe["failureThreshold"] == 2**31 - 1
    assert "readinessProbe" not in container  # one would go on after the worker was ready, for nothing


def test_the_probe_follows_the_users_port_and_stands_beside_the_users_probes() -> None:
    port = {"name": "TICKWHEEL_READY_PORT", "value": "18459"}
    ready, start = {"httpGet": {"path": "/ready", "port": 80}}, {"exec": {"command": ["started"]}}
    (container,) = pod(a_pool(worker(env=[port], readinessProbe=ready)))["containers"]
    assert container["startupProbe"]["tcpSocket"] == {"port": 18459}
    assert container["readinessProbe"] == ready
    (container,) = pod(a_pool(worker(startupProbe=start)))["containers"]
    assert container["startupProbe"] == start
    assert container["readinessProbe"]["tcpSocket"] == {"port": 8459}
    (container,) = pod(a_pool(worker(startupProbe=start, readinessProbe=ready)))["containers"]
    assert (container["startupProbe"], container["readinessProbe"]) == (start, ready)


def test_what_the_restricted_level_asks_for_is_filled_in_every_container() -> None:
    spec = pod(a_pool(worker(), {"name": "proxy", "image": "p"}, pod={"initContainers": [{"name": "i", "image": "i"}]}))
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    for container in [*spec["containers"], *spec["initContainers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


def test_what_the_user_says_about_security_stays() -> None:
    own = {"runAsNonRoot": False, "seccompProfile": {"type": "Localhost", "localhostProfile": "p"}, "fsGroup": 7}
    context = {"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["CHOWN"]}, "readOnlyRootFilesystem": True}
    spec = pod(
        a_pool(worker(securityContext=context), pod={"securityContext": own, "automountServiceAccountToken": True})
    )
    assert spec["automountServiceAccountToken"] is True
    assert spec["securityContext"] == own
    assert spec["containers"][0]["securityContext"] == {**context, "allowPrivilegeEscalation": False}


def test_one_who_asks_for_root_gets_it_without_a_contradiction() -> None:
    spec = pod(a_pool(worker(securityContext={"runAsUser": 0})))
    assert "runAsNonRoot" not in spec["securityContext"]


def test_what_is_made_does_not_change_the_pool_and_is_the_same_each_time() -> None:
    pool = a_pool(worker(env=[{"name": "A", "value": "1"}]))
    first, second = made(pool), made(pool)
    assert first == second
    assert pool.spec.template is not None
    assert pool.spec.template.spec == {"containers": [worker(env=[{"name": "A", "value": "1"}])]}
