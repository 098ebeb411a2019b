"""Who may speak for a pool, on a real cluster: everybody else is refused, and the operator's log says why.

Each of these pods runs the ordinary worker with one thing wrong about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.kube import until
from tests.e2e.load import namespace_objects, pool
from tests.e2e.product import Installation

NAMESPACE = "identity"


@pytest.fixture(scope="module")
def product(installed: Installation) -> Iterator[Installation]:
    kube = installed.kube
    kube.apply(
        *namespace_objects(NAMESPACE),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other", "namespace": NAMESPACE}},
        pool(NAMESPACE, "own", installed.worker_image, replicas=1),
        pool(NAMESPACE, "theirs", installed.worker_image, replicas=1),
        {
            "apiVersion": "tickwheel.io/v1alpha1",
            "kind": "WorkerPool",
            "metadata": {"name": "external", "namespace": NAMESPACE},
            "spec": {"access": {"serviceAccounts": ["worker"]}},
        },
    )
    until("the pools' own workers", lambda: _ready(installed, "own") and _ready(installed, "theirs"), 90)
    yield installed
    kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _ready(product: Installation, name: str) -> bool:
    status = product.kube.get("workerpools.tickwheel.io", name, "-n", NAMESPACE).get("status", {})
    return bool(status.get("slots", {}).get("total"))


def start(product: Installation, name: str, *, pool: str, account: str = "worker", audience: str = "tickwheel",
          **environment: str) -> None:  # fmt: skip
    """A pod that nobody but this test owns, with the worker image."""
    variables = {
        "TICKWHEEL_ENDPOINT": f"https://{product.deployment}.{product.namespace}.svc:8443",
        "TICKWHEEL_POOL": pool,
        "TICKWHEEL_NAMESPACE": NAMESPACE,
        "TICKWHEEL_TOKEN_FILE": "/var/run/tickwheel/token",
        "TICKWHEEL_CA_FILE": "/var/run/tickwheel/ca.crt",
        **environment,
    }
    token = {"serviceAccountToken": {"audience": audience, "path": "token", "expirationSeconds": 3600}}
    authority = {"configMap": {"name": "tickwheel-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    system = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "system.crt"}]}}
    container: dict[str, Any] = {
        "name": "worker",
        "image": product.worker_image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["/handlers/handlers.py"],
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "volumeMounts": [
            {"name": "handlers", "mountPath": "/handlers"},
            {"name": "tickwheel", "mountPath": "/var/run/tickwheel"},
        ],
    }
    volumes = [
        {"name": "handlers", "configMap": {"name": "handlers"}},
        {"name": "tickwheel", "projected": {"sources": [token, authority, system]}},
    ]
    spec = {"serviceAccountName": account, "containers": [container], "volumes": volumes}
    product.kube.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
    )


def logged(product: Installation, *words: str) -> str | None:
    """A line of the operator's log that has all the words."""
    return next((text for text in product.logs().splitlines() if all(word in text for word in words)), None)


def heard(product: Installation, pod: str, *words: str) -> None:
    """Wait for such a line of the operator's log."""
    try:
        until(f"a line with {words}", lambda: logged(product, *words), 60, 1)
    except AssertionError as error:
        mine = product.kube.kubectl("logs", pod, "-n", NAMESPACE, "--tail=20", check=False)
        raise AssertionError(
            f"{error}\n--- the pod's log\n{mine}\n--- the operator's log\n{product.logs()[-6000:]}"
        ) from None


def said(product: Installation, pod: str, *words: str) -> None:
    """A line of the worker's log that has all the words."""

    def line() -> str | None:
        log = product.kube.kubectl("logs", pod, "-n", NAMESPACE, "--tail=50", check=False)
        return next((text for text in log.splitlines() if all(word in text for word in words)), None)

    until(f"{pod} to say {words}", line, 60, 1)


def assert_only_the_welcome(product: Installation) -> None:
    """The pool without a template has the one worker that was let in, and nobody else."""
    status = product.kube.get("workerpools.tickwheel.io", "external", "-n", NAMESPACE).get("status", {})
    assert status.get("slots", {}).get("total", 0) <= 16


def test_an_outside_pod_with_the_pools_account_works_in_a_pool_without_a_template(product: Installation) -> None:
    start(product, "welcome", pool="external")
    until("it to be counted", lambda: _ready(product, "external"), 60)


def test_a_pod_of_another_service_account_is_refused(product: Installation) -> None:
    start(product, "stranger", pool="external", account="other")
    heard(product, "stranger", "AccountNotAdmitted", "stranger", "other", "external")


def test_a_pod_that_the_pool_does_not_own_is_refused(product: Installation) -> None:
    start(product, "impostor", pool="own")
    heard(product, "impostor", "PodOfNoPool", "impostor", "own")


def test_a_worker_of_another_pool_is_refused(product: Installation) -> None:
    (pod,) = (
        p
        for p in product.kube.items("pods", "-n", NAMESPACE, "-l", "tickwheel.io/pool=own")
        if "deletionTimestamp" not in p["metadata"]
    )
    name = pod["metadata"]["name"]
    # The image has no shell: Python sets the variable, and ends the worker, which has a use of its own for alarms.
    script = (
        "import os, subprocess; os.environ['TICKWHEEL_POOL'] = 'theirs';"
        " del os.environ['TICKWHEEL_READY_PORT'];"  # the pod's own worker has it
        " subprocess.run(['python3', '-m', 'tickwheel', '/handlers/handlers.py'], timeout=8)"
    )
    for _ in range(3):  # eight seconds may be too few to come as far as a call
        product.kube.kubectl("exec", name, "-n", NAMESPACE, "--", "python3", "-c", script, check=False)
        if logged(product, "PodOfAnotherPool", name, "theirs"):
            break
    heard(product, name, "PodOfAnotherPool", name, "theirs")


def test_a_token_of_a_wrong_audience_is_refused(product: Installation) -> None:
    start(product, "wrong-audience", pool="external", audience="somebody-else")
    heard(product, "wrong-audience", "WrongAudience", "wrong-audience")
    assert_only_the_welcome(product)


def test_plain_http_is_refused(product: Installation) -> None:
    endpoint = f"http://{product.deployment}.{product.namespace}.svc:8443"
    start(product, "plain", pool="external", TICKWHEEL_ENDPOINT=endpoint)
    address = until("its address", lambda: product.kube.get("pod", "plain", "-n", NAMESPACE)["status"].get("podIP"), 60)
    heard(product, "plain", "PlainHTTP", address)
    assert_only_the_welcome(product)


def test_a_worker_that_trusts_another_authority_does_not_connect(product: Installation) -> None:
    start(product, "distrustful", pool="external", TICKWHEEL_CA_FILE="/var/run/tickwheel/system.crt")
    said(product, "distrustful", "TICKWHEEL_CA_FILE")
    assert_only_the_welcome(product)
