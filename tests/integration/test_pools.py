"""WorkerPools on a real API server, by an operator's process with the roles that ship: the Deployment that a pool gets,
how drift is set back and scale followed, and what is refused. No kubelet runs here: tests/e2e has the pods."""

from __future__ import annotations

import subprocess
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.installation import apply, create_namespace, edit, get, install_operator
from tests.integration.processes import Crew
from tests.integration.soak.scenario import until

from tickwheel_cluster import Access, find_binaries

NAMESPACE = "pools-shop"
SYSTEM = "pools-system"
GATEWAY = "https://tickwheel.tickwheel-system.svc:8443"


@pytest.fixture(scope="module")
def shop(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A namespace that an operator serves."""
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    with Crew(cluster, tmp_path_factory.mktemp("pools"), system=SYSTEM, namespace=NAMESPACE) as crew:
        crew.operator(
            "leader",
            TICKWHEEL_GATEWAY_SERVICE_URL=GATEWAY,
            TICKWHEEL_WORKER_SERVICE_ACCOUNTS="default *-worker",
        ).wait_ready()
        yield cluster


def _pool(name: str, *, image: str = "shop:1", pod: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "worker", "image": image}], **(pod or {})}}
    return {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"template": template, **spec},
    }


def _deployment(cluster: Access, pool: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = get(cluster, "Deployment", NAMESPACE, f"{pool}-workers")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return None
    return found


def _until_deployed(
    cluster: Access, pool: str, holds: Callable[[dict[str, Any]], object] = lambda deployment: True
) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def there() -> bool:
        deployment = _deployment(cluster, pool)
        found[:] = [deployment] if deployment is not None else []
        return deployment is not None and bool(holds(deployment))

    until(f"the Deployment of {pool}", there)
    return found[0]


def _condition(cluster: Access, pool: str, kind: str) -> dict[str, Any]:
    status = get(cluster, "WorkerPool", NAMESPACE, pool).get("status", {})
    found: dict[str, Any] = next((c for c in status.get("conditions", ()) if c["type"] == kind), {})
    return found


def _observed(cluster: Access, pool: str) -> int:
    """The generation that the status speaks of."""
    generation: int = get(cluster, "WorkerPool", NAMESPACE, pool).get("status", {}).get("observedGeneration", 0)
    return generation


def _until_stalled(cluster: Access, pool: str, reason: str) -> str:
    """The message of the pool's condition, once it is stalled for the reason."""
    condition: dict[str, Any] = {}

    def is_stalled() -> bool:
        condition.update(_condition(cluster, pool, "Stalled"))
        return (condition.get("status"), condition.get("reason")) == ("True", reason)

    until(f"{pool} to be stalled: {reason}", is_stalled)
    return str(condition["message"])


def _change_spec(cluster: Access, pool: str, **fields: Any) -> None:
    edit(cluster, "WorkerPool", NAMESPACE, pool, lambda document: document["spec"].update(fields))


def _containers(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = deployment["spec"]["template"]["spec"]["containers"]
    return found


def _delete(cluster: Access, path: str, policy: str = "Background") -> None:
    cluster.request("DELETE", path, {"propagationPolicy": policy})


# --- what is made ----------------------------------------------------------------------------------------------------


def test_a_pool_with_a_template_becomes_a_deployment_that_it_owns(shop: Access) -> None:
    apply(shop, _pool("first", replicas=3, slots=8, drainTimeout="90s"))
    deployment = _until_deployed(shop, "first")
    pool = get(shop, "WorkerPool", NAMESPACE, "first")
    (owner,) = deployment["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (pool["metadata"]["uid"], True, True)
    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    assert (spec["replicas"], pod["terminationGracePeriodSeconds"]) == (3, 120)
    (container,) = pod["containers"]
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert told["TICKWHEEL_ENDPOINT"] == GATEWAY
    assert (told["TICKWHEEL_SLOTS"], told["TICKWHEEL_DRAIN_TIMEOUT"]) == ("8", "90")
    assert container["lifecycle"]["preStop"]["exec"]["command"][-1] == "drain"
    assert container["startupProbe"]["tcpSocket"]["port"] == int(told["TICKWHEEL_READY_PORT"])
    assert container["startupProbe"]["failureThreshold"] > 1_000_000
    managers = {entry["manager"]: entry["operation"] for entry in deployment["metadata"]["managedFields"]}
    assert managers == {"tickwheel-operator": "Apply"}


def test_its_pods_pass_a_namespace_that_enforces_the_restricted_level(shop: Access) -> None:
    apply(shop, _pool("restricted"))
    template = _until_deployed(shop, "restricted")["spec"]["template"]
    namespace = "pools-restricted"
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    apply(shop, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": label}})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": namespace}}
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        apply(shop, {**pod, "spec": {"containers": [{"name": "worker", "image": "shop:1"}]}})
    # Admission, which is not on here, gives each pod an account.
    spec = {**template["spec"], "serviceAccountName": "default"}
    apply(shop, {**pod, "metadata": {"name": "worker", "namespace": namespace}, "spec": spec})


def test_the_pools_labels_and_annotations_reach_its_deployment_also_when_they_change(shop: Access) -> None:
    pool = _pool("labelled")
    pool["metadata"] |= {
        "labels": {"team": "payments", "argocd.argoproj.io/instance": "shop"},
        "annotations": {"owner": "ana", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }
    apply(shop, pool)
    metadata = _until_deployed(shop, "labelled")["metadata"]
    assert metadata["labels"]["team"] == "payments"
    assert "argocd.argoproj.io/instance" not in metadata["labels"]
    assert metadata["annotations"]["owner"] == "ana"
    assert "kubectl.kubernetes.io/last-applied-configuration" not in metadata["annotations"]
    edit(shop, "WorkerPool", NAMESPACE, "labelled", lambda d: d["metadata"].update(labels={"team": "billing"}))
    deployment = _until_deployed(shop, "labelled", lambda d: d["metadata"]["labels"]["team"] == "billing")
    assert deployment["metadata"]["generation"] == 1, "the pods stay"
    edit(shop, "WorkerPool", NAMESPACE, "labelled", lambda d: d["metadata"].update(labels={}, annotations={}))
    _until_deployed(shop, "labelled", lambda d: "team" not in d["metadata"]["labels"])


def test_handlers_in_a_config_map_roll_the_pods_by_an_annotation_of_the_template(shop: Access) -> None:
    """What a chart does with a checksum: docs/workerpools.md."""
    apply(shop, _pool("checksum"))
    before = _until_deployed(shop, "checksum")["metadata"]["generation"]
    template = _pool("checksum")["spec"]["template"] | {"metadata": {"annotations": {"checksum/handlers": "2"}}}
    _change_spec(shop, "checksum", template=template)
    deployment = _until_deployed(shop, "checksum", lambda d: d["metadata"]["generation"] > before)
    assert deployment["spec"]["template"]["metadata"]["annotations"] == {"checksum/handlers": "2"}


def test_kustomize_puts_the_hash_of_a_config_map_into_a_pools_volumes(tmp_path: Path) -> None:
    """With the configuration that docs/workerpools.md shows; a new hash is a new template."""
    text = (Path(__file__).parents[2] / "docs" / "workerpools.md").read_text()
    (shown,) = [line.strip().strip("`.") for line in text.splitlines() if line.strip().startswith("`nameReference:")]
    pool = _pool("shop", pod={"volumes": [{"name": "handlers", "configMap": {"name": "handlers"}}]})
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump(pool))
    (tmp_path / "names.yaml").write_text(shown)
    generator = [{"name": "handlers", "namespace": NAMESPACE, "literals": ["handlers.py=x"]}]
    folder = {"resources": ["pool.yaml"], "configMapGenerator": generator, "configurations": ["names.yaml"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(folder))
    kubectl = str(find_binaries() / "kubectl")
    done = subprocess.run([kubectl, "kustomize", str(tmp_path)], capture_output=True, text=True, check=True, timeout=60)
    documents = {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}
    (volume,) = documents["WorkerPool"]["spec"]["template"]["spec"]["volumes"]
    assert volume["configMap"]["name"] == documents["ConfigMap"]["metadata"]["name"] != "handlers"


def test_a_pool_without_a_template_gets_none_and_one_that_loses_its_template_loses_it(shop: Access) -> None:
    apply(shop, _pool("leaves"), {**_pool("outside"), "spec": {}})
    _until_deployed(shop, "leaves")
    assert _deployment(shop, "outside") is None
    edit(shop, "WorkerPool", NAMESPACE, "leaves", lambda document: document["spec"].pop("template"))
    until("the Deployment to go", lambda: _deployment(shop, "leaves") is None)


def test_workers_are_given_the_authority_of_the_gateway_and_other_keys_stay(cluster: Access, tmp_path: Path) -> None:
    namespace, system = "pools-trust", "pools-trust-system"
    install_operator(cluster, system)
    create_namespace(cluster, namespace)
    metadata = {"name": "tickwheel-ca", "namespace": namespace}
    data = {"ca.crt": "somebody's", "other": "kept"}
    apply(cluster, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    pool = _pool("shop")
    pool["metadata"]["namespace"] = namespace
    with Crew(cluster, tmp_path, system=system, namespace=namespace) as crew:
        crew.operator("with-tls", TICKWHEEL_TLS_MODE="Own")
        apply(cluster, pool)
        until("the Deployment", lambda: get(cluster, "Deployment", namespace)["items"])
    written = get(cluster, "ConfigMap", namespace, "tickwheel-ca")["data"]
    assert written["ca.crt"].startswith("-----BEGIN CERTIFICATE-----")
    assert written["other"] == "kept"
    (deployment,) = get(cluster, "Deployment", namespace)["items"]
    (container,) = _containers(deployment)
    told = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    assert told["TICKWHEEL_CA_FILE"] == "/var/run/tickwheel/ca.crt"
    assert told["TICKWHEEL_ENDPOINT"].startswith(f"https://tickwheel.{system}.svc:")


# --- scale -----------------------------------------------------------------------------------------------------------


def test_kubectl_scale_changes_the_number_of_workers(shop: Access) -> None:
    apply(shop, _pool("scales"))
    _until_deployed(shop, "scales")
    path = f"/apis/tickwheel.io/v1alpha1/namespaces/{NAMESPACE}/workerpools/scales/scale"
    scale = shop.request("GET", path)
    scale["spec"]["replicas"] = 7
    del scale["metadata"]["resourceVersion"]  # the operator writes the pool's status meanwhile
    shop.request("PUT", path, scale)
    _until_deployed(shop, "scales", lambda deployment: deployment["spec"]["replicas"] == 7)


def test_kubectl_scale_of_an_autoscaled_pool_is_refused_with_what_to_change(shop: Access) -> None:
    apply(shop, _pool("autoscaled", autoscaling={"maxReplicas": 4}))
    path = f"/apis/tickwheel.io/v1alpha1/namespaces/{NAMESPACE}/workerpools/autoscaled/scale"
    scale = shop.request("GET", path)
    scale["spec"]["replicas"] = 3
    del scale["metadata"]["resourceVersion"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        shop.request("PUT", path, scale)
    assert refused.value.code == 422
    assert "change spec.autoscaling.minReplicas or maxReplicas" in refused.value.read().decode()
    # Who turns it on or off may say both at once.
    _change_spec(shop, "autoscaled", autoscaling=None, replicas=3)
    _change_spec(shop, "autoscaled", autoscaling={"maxReplicas": 4}, replicas=2)
    _change_spec(shop, "autoscaled", replicas=1)


# --- drift -----------------------------------------------------------------------------------------------------------


def test_what_somebody_else_changes_is_set_back_and_what_is_theirs_stays(shop: Access) -> None:
    apply(shop, _pool("drifts", replicas=2))
    _until_deployed(shop, "drifts")

    def change(deployment: dict[str, Any]) -> None:
        _containers(deployment)[0]["image"] = "other:1"
        deployment["spec"]["replicas"] = 9
        deployment["metadata"]["ownerReferences"] = []
        del deployment["metadata"]["labels"]["tickwheel.io/pool"]
        deployment["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now"}

    edit(shop, "Deployment", NAMESPACE, "drifts-workers", change)
    deployment = _until_deployed(shop, "drifts", lambda d: "tickwheel.io/pool" in d["metadata"]["labels"])
    assert _containers(deployment)[0]["image"] == "shop:1"
    assert deployment["spec"]["replicas"] == 2
    assert len(deployment["metadata"]["ownerReferences"]) == 1
    assert deployment["spec"]["template"]["metadata"]["annotations"] == {"kubectl.kubernetes.io/restartedAt": "now"}


def test_who_scales_the_deployment_instead_of_the_pool_is_set_back(shop: Access) -> None:
    apply(shop, _pool("scaled-below", replicas=2))
    _until_deployed(shop, "scaled-below")
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/scaled-below-workers/scale"
    scale = shop.request("GET", path)
    scale["spec"]["replicas"] = 9
    shop.request("PUT", path, scale)
    deployment = _until_deployed(shop, "scaled-below", lambda deployment: deployment["spec"]["replicas"] == 2)
    assert deployment["metadata"]["generation"] == 3


def test_a_deployment_that_somebody_deletes_is_made_again(shop: Access) -> None:
    apply(shop, _pool("deleted"))
    before = _until_deployed(shop, "deleted")["metadata"]["uid"]
    _delete(shop, f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/deleted-workers")
    _until_deployed(shop, "deleted", lambda deployment: deployment["metadata"]["uid"] != before)


def test_a_pool_that_is_being_deleted_gets_no_new_deployment(shop: Access) -> None:
    apply(shop, _pool("going"))
    _until_deployed(shop, "going")
    path = f"/apis/tickwheel.io/v1alpha1/namespaces/{NAMESPACE}/workerpools/going"
    # Foreground: the pool stays until the garbage collector, of which there is none here, has deleted its Deployment.
    _delete(shop, path, "Foreground")
    # Pools and Deployments are watched apart; a deletion is a generation of its own.
    until("the operator to know of it", lambda: _observed(shop, "going") == 2)
    _delete(shop, f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/going-workers")
    apply(shop, _pool("after-going"))
    _until_deployed(shop, "after-going")
    assert _deployment(shop, "going") is None


def test_another_operator_that_takes_over_writes_nothing_that_is_right(cluster: Access, tmp_path: Path) -> None:
    namespace, system = "pools-handed-over", "pools-handed-over-system"
    install_operator(cluster, system)
    create_namespace(cluster, namespace)
    pools = [_pool(name) for name in ("one", "two")]
    for pool in pools:
        pool["metadata"]["namespace"] = namespace

    def versions() -> dict[str, str]:
        items = get(cluster, "Deployment", namespace)["items"]
        return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}

    with Crew(cluster, tmp_path, system=system, namespace=namespace) as crew:
        first = crew.operator("first", TICKWHEEL_GATEWAY_SERVICE_URL=GATEWAY)
        apply(cluster, *pools)
        until("both Deployments", lambda: len(versions()) == 2)
        before = versions()
        assert first.terminate() == 0
        # What changed while nobody led is found without being told.
        edit(cluster, "WorkerPool", namespace, "two", lambda document: document["spec"].update(replicas=4))
        crew.operator("second", TICKWHEEL_GATEWAY_SERVICE_URL=GATEWAY)
        until("the change to be applied", lambda: versions()["two-workers"] != before["two-workers"])
        apply(cluster, {**pools[0], "metadata": {"name": "three", "namespace": namespace}})
        until("a third Deployment", lambda: len(versions()) == 3)
        assert versions()["one-workers"] == before["one-workers"]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_template_that_is_not_allowed_is_named_by_all_its_faults_and_the_pods_stay(shop: Access) -> None:
    apply(shop, _pool("greedy"))
    before = _until_deployed(shop, "greedy")
    bad = _pool("greedy", image="shop:2", pod={"hostNetwork": True, "serviceAccountName": "admin"})
    _change_spec(shop, "greedy", template=bad["spec"]["template"])
    message = _until_stalled(shop, "greedy", "TemplateNotAllowed")
    assert "spec.template.spec.hostNetwork: workers may not reach into the node" in message
    assert "spec.template.spec.serviceAccountName: admin may not be used" in message
    after = _deployment(shop, "greedy")
    assert after is not None
    assert after["spec"] == before["spec"]
    _change_spec(shop, "greedy", template=_pool("greedy", image="shop:3")["spec"]["template"])
    _until_deployed(shop, "greedy", lambda deployment: _containers(deployment)[0]["image"] == "shop:3")
    until("it not to be stalled", lambda: _condition(shop, "greedy", "Stalled")["status"] == "False")


@pytest.mark.parametrize(
    ("name", "pod", "said"),
    [
        ("bad-value", {"dnsPolicy": "Nowhere"}, "spec.template.spec.dnsPolicy"),
        ("bad-field", {"nodeSelektor": {"a": "b"}}, "nodeSelektor"),
        ("bad-type", {"tolerations": "all"}, "tolerations"),
        ("bad-twice", {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]}, "volumes"),
    ],
)
def test_what_the_api_server_refuses_is_told_in_its_own_words_and_mended_by_the_next_edit(
    shop: Access, name: str, pod: dict[str, Any], said: str
) -> None:
    apply(shop, _pool(name, pod=pod))
    until("it to be stalled", lambda: _condition(shop, name, "Stalled").get("status") == "True")
    condition = _condition(shop, name, "Stalled")
    assert "the API server refuses the Deployment" in condition["message"]
    assert said in condition["message"]
    _change_spec(shop, name, template=_pool(name)["spec"]["template"])
    _until_deployed(shop, name)


def test_a_quota_that_refuses_the_deployment_is_told_and_the_pool_goes_on_when_it_allows_it(shop: Access) -> None:
    quota = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas"
    hard = {"count/deployments.apps": "0"}
    labels = {"app": "probe"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}}
    probe = {"metadata": {"name": "probe"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}

    def is_over() -> bool:
        try:
            shop.request("POST", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments?dryRun=All", probe)
        except urllib.error.HTTPError as error:
            return "exceeded quota: none" in error.read().decode()
        return False

    shop.request("POST", quota, {"metadata": {"name": "none"}, "spec": {"hard": hard}})
    # Without a controller manager nobody fills the status, which is what admission goes by.
    shop.request(
        "PUT",
        f"{quota}/none/status",
        {**shop.request("GET", f"{quota}/none"), "status": {"hard": hard, "used": {"count/deployments.apps": "0"}}},
    )
    try:
        until("admission, which learns of the quota by a watch, to go by it", is_over)
        apply(shop, _pool("over-quota"))
        assert "exceeded quota: none" in _until_stalled(shop, "over-quota", "Forbidden")
    finally:
        _delete(shop, f"{quota}/none")
    _until_deployed(shop, "over-quota")


def test_a_deployment_of_that_name_that_is_not_the_pools_is_left_alone(shop: Access) -> None:
    labels = {"app": "somebody"}
    container = {"name": "app", "image": "app:1"}
    other = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "taken-workers", "namespace": NAMESPACE, "labels": {"tickwheel.io/pool": "taken"}},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    apply(shop, other)
    before = _deployment(shop, "taken")
    apply(shop, _pool("taken"))
    message = _until_stalled(shop, "taken", "NameTaken")
    assert "kubectl delete deployment -n pools-shop taken-workers" in message
    assert _deployment(shop, "taken") == before
    _delete(shop, f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/taken-workers")
    _until_deployed(shop, "taken", lambda deployment: "ownerReferences" in deployment["metadata"])


def test_pods_that_cannot_be_made_are_told_in_the_controllers_words(shop: Access) -> None:
    apply(shop, _pool("no-pods"))
    _until_deployed(shop, "no-pods")
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "violates PodSecurity"}
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/no-pods-workers"
    # What the controller manager would write.
    deployment = shop.request("GET", path)
    deployment["status"] = {"observedGeneration": 1, "replicas": 0, "conditions": [failure]}
    shop.request("PUT", f"{path}/status", deployment)
    assert "violates PodSecurity" in _until_stalled(shop, "no-pods", "FailedCreate")
