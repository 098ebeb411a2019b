"""Who may speak for which pool, and whom workers believe to be the operator: a TLS gateway on a real API server.

Pods are objects without a kubelet: their tokens are bound to them as those that kubelet projects are. The Deployments
are the operator's own; the ReplicaSets between, which kube-controller-manager would make, are the test's.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config
from tests.contract.authority_store import writes_replace_what_was_read
from tests.integration.caller import Answer, Caller
from tests.integration.installation import OPERATOR_ACCOUNT, apply, create_namespace, install_operator, service_account
from tests.integration.processes import PATIENT_LEASE, OperatorProcess, WorkerProcess
from tests.integration.soak.scenario import until

from tickwheel_cluster import Access
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.tls.store import AuthorityStore, BadSecret

SYSTEM = "identity-system"
NAMESPACE = "identity-shop"
ELSEWHERE = "identity-elsewhere"
HANDLERS = """
from tickwheel import task

@task("quick")
def quick(ctx):
    return 1
"""


class TlsOperator(OperatorProcess):
    """A replica that makes its own certificate, called `localhost` by the tests."""

    def __init__(self, cluster: Access, folder: Path, name: str, **environment: str) -> None:
        super().__init__(
            cluster, folder, name, namespace=SYSTEM, TICKWHEEL_TLS_MODE="Own",
            TICKWHEEL_WATCH_NAMESPACES=f"{NAMESPACE} {ELSEWHERE}", TICKWHEEL_TLS_PUBLISH_MINUTES="0.05",
            **PATIENT_LEASE, **environment,
        )  # fmt: skip
        self.url = f"https://localhost:{self.port}"
        self._environment["TICKWHEEL_ADVERTISE_URL"] = f"https://127.0.0.1:{self.port}"

    def wait_ready(self, timeout: float = 120) -> None:
        until(f"{self.name} to be ready", self._is_ready, timeout_s=timeout)

    def _is_ready(self) -> bool:
        assert self.alive, self.log_tail()
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2, context=unchecked):
                return True
        except OSError:
            return False

    def says(self, *texts: str) -> bool:
        """Whether one line of the log has all of them."""
        return any(all(text in line for text in texts) for line in self.log.read_text().splitlines())


@pytest.fixture(scope="module")
def operator(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsOperator]:
    """A leader that serves three pools: `own` and `other` have a template, `outside` has none."""
    install_operator(cluster, SYSTEM)
    for namespace in (NAMESPACE, ELSEWHERE):
        create_namespace(cluster, namespace)
        for account in ("default", "shop-worker", "intruder"):
            apply(cluster, service_account(namespace, account))
    template = {"spec": {"serviceAccountName": "shop-worker", "containers": [{"name": "worker", "image": "worker"}]}}
    apply(
        cluster,
        _pool("own", {"template": template}),
        _pool("other", {"template": template}),
        _pool("outside", {"access": {"serviceAccounts": ["shop-worker"]}}),
    )
    with TlsOperator(cluster, tmp_path_factory.mktemp("identity"), "leader") as operator:
        operator.wait_ready()
        yield operator


@pytest.fixture(scope="module")
def trust(cluster: Access, operator: TlsOperator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that the operator puts where the pool's pods mount it from."""
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/tickwheel-ca"
    until("the ConfigMap with the authority", lambda: _exists(cluster, path))
    file = tmp_path_factory.mktemp("trust") / "ca.crt"
    file.write_text(cluster.request("GET", path)["data"]["ca.crt"])
    return file


@pytest.fixture(scope="module")
def sets(cluster: Access, operator: TlsOperator) -> dict[str, dict[str, Any]]:
    """The ReplicaSet of each pool's Deployment."""
    return {pool: _replica_set(cluster, pool) for pool in ("own", "other")}


# --- what is let in --------------------------------------------------------------------------------------------------


def test_a_worker_in_a_pod_of_the_pool_connects_by_tls_and_takes_work(
    cluster: Access, operator: TlsOperator, trust: Path, sets: dict[str, Any], tmp_path: Path
) -> None:
    pod = _pod(cluster, "own-1", owner=sets["own"])
    (tmp_path / "handlers.py").write_text(HANDLERS)
    with WorkerProcess(
        operator.url, tmp_path, "own-1", namespace=NAMESPACE, pool="own", token=_token(cluster, pod),
        handlers=tmp_path / "handlers.py", TICKWHEEL_CA_FILE=str(trust),
    ) as worker:  # fmt: skip
        until("the worker to be known", lambda: _workers(operator, "own") == 1)
        assert "taking work from https://127.0.0.1" in worker.log_tail()


def test_a_pool_without_a_template_takes_a_token_of_no_pod_and_one_of_a_pod_that_no_pool_owns(
    cluster: Access, operator: TlsOperator, trust: Path
) -> None:
    unbound = cluster.service_account_token(NAMESPACE, "shop-worker", audience="tickwheel")
    free = _token(cluster, _pod(cluster, "free-1"))
    for token in (unbound, free):
        assert _pull(operator, trust, token, pool="outside", name="any").status == 200


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_pod_of_another_pool_is_refused(
    cluster: Access, operator: TlsOperator, trust: Path, sets: dict[str, Any]
) -> None:
    pod = _pod(cluster, "other-1", owner=sets["other"])
    for pool in ("own", "outside"):
        answer = _pull(operator, trust, _token(cluster, pod), pool=pool, name="other-1")
        _is_refused(answer, 403, "other-1", "belongs to WorkerPool 'other'", repr(pool))
    assert operator.says("WARNING", "PodOfAnotherPool", f"{NAMESPACE}/other-1", "WorkerPool 'own'", repr(NAMESPACE))


def test_labels_do_not_make_a_pod_one_of_the_pool(cluster: Access, operator: TlsOperator, trust: Path) -> None:
    pod = _pod(cluster, "labelled-1", labels={"tickwheel.io/pool": "own"})
    answer = _pull(operator, trust, _token(cluster, pod), pool="own", name="labelled-1")
    _is_refused(answer, 403, "belongs to no WorkerPool", "takes only the pods that it makes")
    assert operator.says("PodOfNoPool", f"{NAMESPACE}/labelled-1")


def test_an_owner_of_the_right_name_and_another_uid_is_not_the_owner(
    cluster: Access, operator: TlsOperator, trust: Path, sets: dict[str, Any]
) -> None:
    """As of a ReplicaSet that was deleted and made anew, or of one that somebody made up."""
    false = json.loads(json.dumps(sets["own"]))
    false["metadata"]["uid"] = "00000000-0000-4000-8000-000000000000"
    pod = _pod(cluster, "false-1", owner=false)
    answer = _pull(operator, trust, _token(cluster, pod), pool="own", name="false-1")
    _is_refused(answer, 403, "belongs to no WorkerPool")


def test_a_pod_may_not_speak_for_another_pod_of_its_pool(
    cluster: Access, operator: TlsOperator, trust: Path, sets: dict[str, Any]
) -> None:
    pod = _pod(cluster, "own-2", owner=sets["own"])
    answer = _pull(operator, trust, _token(cluster, pod), pool="own", name="own-1")
    _is_refused(answer, 403, "own-2", "calls itself 'own-1'", "the name of its pod")
    assert operator.says("NameIsNotThePods", f"{NAMESPACE}/own-2", "'own-1'")


def test_a_token_of_no_pod_is_refused_by_a_pool_with_a_template(
    cluster: Access, operator: TlsOperator, trust: Path
) -> None:
    token = cluster.service_account_token(NAMESPACE, "shop-worker", audience="tickwheel")
    _is_refused(_pull(operator, trust, token, pool="own"), 403, "bound to no pod", "without a template")
    assert operator.says("NotBoundToAPod", f"system:serviceaccount:{NAMESPACE}:shop-worker", "WorkerPool 'own'")


def test_another_service_account_is_refused(cluster: Access, operator: TlsOperator, trust: Path) -> None:
    pod = _pod(cluster, "intruder-1", account="intruder")
    answer = _pull(operator, trust, _token(cluster, pod), pool="outside", name="intruder-1")
    _is_refused(answer, 403, "'intruder' may not speak for WorkerPool 'outside'", "admits shop-worker")
    assert operator.says("AccountNotAdmitted", f"{NAMESPACE}/intruder-1", "'outside'", "admits shop-worker")


def test_an_account_of_another_namespace_is_refused(cluster: Access, operator: TlsOperator, trust: Path) -> None:
    token = cluster.service_account_token(ELSEWHERE, "shop-worker", audience="tickwheel")
    _is_refused(_pull(operator, trust, token, pool="outside"), 403, f"its own namespace '{ELSEWHERE}'")
    assert operator.says("OtherNamespace", ELSEWHERE, f"not '{NAMESPACE}'")


def test_a_token_of_another_audience_is_refused(
    cluster: Access, operator: TlsOperator, trust: Path, sets: dict[str, Any]
) -> None:
    pod = _pod(cluster, "own-3", owner=sets["own"])
    for audience in ("vault", "https://kubernetes.default.svc"):
        answer = _pull(operator, trust, _token(cluster, pod, audience=audience), pool="own", name="own-3")
        _is_refused(answer, 401, "is not for audience `tickwheel`", f"pod {NAMESPACE}/own-3")
    assert operator.says("WrongAudience", f"{NAMESPACE}/own-3", "vault")


def test_an_expired_token_is_refused(cluster: Access, operator: TlsOperator, trust: Path, sets: dict[str, Any]) -> None:
    key = cluster.directory / "pki" / "sa.key"
    if not key.is_file():
        pytest.skip("an expired token can only be made with the key of the test's own API server")
    pod = _pod(cluster, "own-4", owner=sets["own"])
    token = _aged(_token(cluster, pod), key, seconds=4_000)
    answer = _pull(operator, trust, token, pool="own", name="own-4")
    _is_refused(answer, 401, "expired", "read it anew from its file")
    assert operator.says("InvalidToken", f"{NAMESPACE}/own-4", "expired")


def test_the_token_of_a_pod_that_is_gone_is_refused(
    cluster: Access, operator: TlsOperator, trust: Path, sets: dict[str, Any]
) -> None:
    pod = _pod(cluster, "own-5", owner=sets["own"])
    token = _token(cluster, pod)
    cluster.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/own-5", {"gracePeriodSeconds": 0})
    # The API server itself learns of it by a watch.
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    spec = {"token": token, "audiences": ["tickwheel"]}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"

    def is_over() -> bool:
        return not cluster.request("POST", path, {**review, "spec": spec})["status"].get("authenticated")

    until("the API server to know", is_over)
    answer = _pull(operator, trust, token, pool="own", name="own-5")
    _is_refused(answer, 401, "its pod or ServiceAccount is gone")


def test_no_token_is_in_the_log(operator: TlsOperator) -> None:
    """Of all the tests above: each token begins like this."""
    assert "eyJ" not in operator.log.read_text()


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_plain_http_is_told_what_to_mend_on_both_sides(operator: TlsOperator, tmp_path: Path) -> None:
    with _stranger(operator.url.replace("https:", "http:"), tmp_path) as worker:
        until("the worker's complaint", lambda: "plain HTTP at the port of TLS" in worker.log_tail())
    until("the operator's line", lambda: operator.says("WARNING", "PlainHTTP", "127.0.0.1"))


def test_a_worker_that_does_not_trust_the_authority_says_so_on_both_sides(
    cluster: Access, operator: TlsOperator, tmp_path: Path
) -> None:
    ca = str(cluster.ca_file)
    with _stranger(operator.url, tmp_path, TICKWHEEL_CA_FILE=ca) as worker:
        until("the worker's complaint", lambda: f"TICKWHEEL_CA_FILE is {ca}" in worker.log_tail())
        assert "certificate verify failed" in worker.log_tail()
    until("the operator's line", lambda: operator.says("WARNING", "HandshakeFailed", "127.0.0.1", "does not trust"))
    assert _workers(operator, "outside") <= 1


def test_a_second_replica_shows_a_leaf_of_the_same_authority(
    cluster: Access, operator: TlsOperator, trust: Path, tmp_path: Path
) -> None:
    with TlsOperator(cluster, tmp_path, "follower") as follower:
        follower.wait_ready()
        token = cluster.service_account_token(NAMESPACE, "shop-worker", audience="tickwheel")

        def knows_the_leader() -> bool:
            answer = _pull(follower, trust, token, pool="outside")
            assert (answer.status, answer.problem) == (421, "not-leader")
            return bool(answer.body.get("leader", "").startswith("https://"))

        until("the follower to have read the Lease", knows_the_leader)


async def test_of_two_replicas_that_write_the_authorities_the_second_reads_what_the_first_made(cluster: Access) -> None:
    system = "identity-store"
    install_operator(cluster, system)
    until("the API server to go by the roles", lambda: _may(cluster, system, "get", "tickwheel-ca", system))
    configuration = kubernetes_client.Configuration()
    kubeconfig = str(cluster.service_account_kubeconfig(system, OPERATOR_ACCOUNT))
    await kubernetes_config.load_kube_config(kubeconfig, client_configuration=configuration)
    async with kubernetes_client.ApiClient(configuration) as client:
        store = AuthorityStore(KubeClient(client), namespace=system)
        await writes_replace_what_was_read(store)
        path = f"/api/v1/namespaces/{system}/secrets/tickwheel-ca"
        secret = cluster.request("GET", path)
        secret["data"]["tls.key"] = base64.b64encode(b"torn").decode()
        cluster.request("PUT", path, secret)
        with pytest.raises(BadSecret, match="the key is no unencrypted PEM key") as caught:
            await store.read()
        assert "kubectl delete secret" in str(caught.value) and "torn" not in str(caught.value)


def test_the_operator_may_read_no_other_secret(cluster: Access, operator: TlsOperator) -> None:
    for verb, name, namespace in (
        ("get", "other", SYSTEM), ("list", "", SYSTEM), ("get", "tickwheel-ca", NAMESPACE), ("create", "", NAMESPACE),
        ("delete", "tickwheel-ca", SYSTEM), ("patch", "tickwheel-ca", SYSTEM), ("watch", "", SYSTEM),
    ):  # fmt: skip
        assert not _may(cluster, SYSTEM, verb, name, namespace), (verb, name, namespace)


def test_a_deleted_authority_is_made_anew_and_a_connected_worker_works_on(
    cluster: Access, operator: TlsOperator, trust: Path, sets: dict[str, Any], tmp_path: Path
) -> None:
    pod = _pod(cluster, "own-6", owner=sets["own"])
    mounted = tmp_path / "ca.crt"
    mounted.write_text(trust.read_text())
    (tmp_path / "handlers.py").write_text(HANDLERS)
    with WorkerProcess(
        operator.url, tmp_path, "own-6", namespace=NAMESPACE, pool="own", token=_token(cluster, pod),
        handlers=tmp_path / "handlers.py", TICKWHEEL_CA_FILE=str(mounted), TICKWHEEL_PULL_WAIT="1",
    ) as worker:  # fmt: skip
        until("the worker to be known", lambda: "taking work from" in worker.log_tail())
        cluster.request("DELETE", f"/api/v1/namespaces/{SYSTEM}/secrets/tickwheel-ca")
        config_map = f"/api/v1/namespaces/{NAMESPACE}/configmaps/tickwheel-ca"
        until(
            "the new authority where pods mount it from",
            lambda: cluster.request("GET", config_map)["data"]["ca.crt"] != trust.read_text(),
        )
        old = _pull(operator, trust, _token(cluster, pod), pool="own", name="own-6")
        assert old.status == 0, "who trusts only the old authority is not served any more"
        # As kubelet does.
        mounted.write_text(cluster.request("GET", config_map)["data"]["ca.crt"])
        until("the worker to take the new bundle", lambda: "trusting the authorities" in worker.log_tail())
        assert _pull(operator, mounted, _token(cluster, pod), pool="own", name="own-6").status == 200
        assert "does not verify" not in worker.log_tail()
        assert worker.terminate() == 0


def test_the_metrics_tell_who_was_refused_and_when_certificates_end(operator: TlsOperator) -> None:
    sample = 'tickwheel_gateway_refused_total{reason="PlainHTTP"}'
    before = operator.metrics()[sample]
    assert Caller("").topology(operator.url.replace("https:", "http:")).status == 400
    samples = operator.metrics()
    assert samples[sample] == before + 1
    for kind, days in (("ca", 365), ("leaf", 30)):
        left = samples[f'tickwheel_tls_certificate_expiry_timestamp_seconds{{kind="{kind}"}}'] - time.time()
        assert days - 1 < left / 86_400 <= days


# --- objects ---------------------------------------------------------------------------------------------------------


def _pull(operator: TlsOperator, trust: Path, token: str, *, pool: str, name: str = "raw-0") -> Answer:
    tls = ssl.create_default_context(cafile=str(trust))
    caller = Caller(token, namespace=NAMESPACE, pool=pool, name=name, handlers=("raw",), tls=tls)
    return caller.pull(operator.url)


def _is_refused(answer: Answer, status: int, *texts: str) -> None:
    assert answer.status == status, answer
    for text in texts:
        assert text in answer.body["detail"]


def _stranger(endpoint: str, folder: Path, **environment: str) -> WorkerProcess:
    (folder / "handlers.py").write_text(HANDLERS)
    return WorkerProcess(
        endpoint, folder, "stranger", namespace=NAMESPACE, pool="outside", token="none",
        handlers=folder / "handlers.py", **environment,
    )  # fmt: skip


def _may(cluster: Access, system: str, verb: str, name: str, namespace: str) -> bool:
    """Whether the operator of the namespace `system` may do so with the Secret."""
    attributes = {"resource": "secrets", "verb": verb, "name": name, "namespace": namespace}
    review = {"user": f"system:serviceaccount:{system}:{OPERATOR_ACCOUNT}", "resourceAttributes": attributes}
    answer = cluster.request(
        "POST",
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": review},
    )
    return bool(answer["status"]["allowed"])


def _workers(operator: TlsOperator, pool: str) -> float:
    return operator.metrics().get(f'tickwheel_workers{{namespace="{NAMESPACE}",pool="{pool}"}}', 0)


def _exists(cluster: Access, path: str) -> bool:
    try:
        cluster.request("GET", path)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return False
    return True


def _pool(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "tickwheel.io/v1alpha1", "kind": "WorkerPool", "metadata": metadata, "spec": spec}


def _owner(thing: dict[str, Any]) -> dict[str, Any]:
    metadata = thing["metadata"]
    return {
        "apiVersion": thing["apiVersion"], "kind": thing["kind"], "name": metadata["name"], "uid": metadata["uid"],
        "controller": True,
    }  # fmt: skip


def _replica_set(cluster: Access, pool: str) -> dict[str, Any]:
    """As kube-controller-manager makes it from the operator's Deployment."""
    apps = f"/apis/apps/v1/namespaces/{NAMESPACE}"
    path = f"{apps}/deployments/{pool}-workers"
    until(f"the Deployment of {pool}", lambda: _exists(cluster, path))
    deployment = cluster.request("GET", path)
    made: dict[str, Any] = cluster.request(
        "POST",
        f"{apps}/replicasets",
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{pool}-workers-1", "namespace": NAMESPACE, "ownerReferences": [_owner(deployment)]
            },
            "spec": {key: deployment["spec"][key] for key in ("selector", "template")},
        },
    )  # fmt: skip
    return made


def _pod(
    cluster: Access,
    name: str,
    *,
    owner: dict[str, Any] | None = None,
    account: str = "shop-worker",
    labels: dict[str, str] | None = None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "labels": labels or {}}
    if owner is not None:
        metadata["labels"] = owner["spec"]["template"]["metadata"]["labels"]
        metadata["ownerReferences"] = [_owner(owner)]
    spec = {"serviceAccountName": account, "containers": [{"name": "worker", "image": "worker"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    made: dict[str, Any] = cluster.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", pod)
    return made


def _token(cluster: Access, pod: dict[str, Any], *, audience: str = "tickwheel") -> str:
    """As kubelet projects it into the pod."""
    metadata = pod["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    spec = {"expirationSeconds": 3_600, "boundObjectRef": bound, "audiences": [audience]}
    account = pod["spec"]["serviceAccountName"]
    answer = cluster.request(
        "POST",
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
    )
    return str(answer["status"]["token"])


def _aged(token: str, key: Path, *, seconds: int) -> str:
    """The same token, made so much earlier: the API server gives none that lives less than ten minutes."""
    header, payload, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    for name in ("exp", "iat", "nbf"):
        claims[name] -= seconds
    signed = f"{header}.{_base64(json.dumps(claims).encode())}"
    private: Any = serialization.load_pem_private_key(key.read_bytes(), None)
    return f"{signed}.{_base64(private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
