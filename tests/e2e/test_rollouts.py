"""New versions of workers that do not work, on real pods: the good old ones stay, and the pool says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.kube import is_ready, until
from tests.e2e.load import namespace_objects, pool
from tests.e2e.product import OPERATOR, Installation

NAMESPACE = "rollouts"
VERSIONS = {
    "good": """
from tickwheel import task

@task("quick")
async def quick(ctx): ...
""",
    # What a handler's module does for eight seconds before it finds out that something is missing.
    "never-registers": """
import time
time.sleep(8)
raise RuntimeError("there is no database")
""",
    "bad-token": """
import os
from tickwheel import task

os.environ |= {"TICKWHEEL_TOKEN_FILE": "", "TICKWHEEL_TOKEN": "nonsense"}

@task("quick")
async def quick(ctx): ...
""",
    # Connects, and ends eight seconds after its start.
    "registers-and-ends": """
import os, threading
from tickwheel import task

@task("quick")
async def quick(ctx): ...

threading.Timer(8, lambda: os._exit(3)).start()
""",
}


@pytest.fixture(scope="module")
def product(installed: Installation) -> Iterator[Installation]:
    versions = [config_map(name, text) for name, text in VERSIONS.items()]
    installed.kube.apply(*namespace_objects(NAMESPACE), *versions)
    yield installed
    installed.kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def config_map(name: str, handlers: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"handlers.py": handlers}}


def of_version(name: str, version: str, image: str, **spec: Any) -> dict[str, Any]:
    """A pool whose handlers are that ConfigMap."""
    made = pool(NAMESPACE, name, image, **spec)
    made["spec"]["template"]["spec"]["volumes"] = [{"name": "handlers", "configMap": {"name": version}}]
    return made


def pods(product: Installation, name: str) -> dict[str, dict[str, Any]]:
    """The pool's pods that are not on their way out, by name."""
    found = product.kube.items("pods", "-n", NAMESPACE, "-l", f"tickwheel.io/pool={name}")
    return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}


def condition(product: Installation, name: str, kind: str) -> dict[str, str]:
    status = product.kube.get("workerpools.tickwheel.io", name, "-n", NAMESPACE).get("status", {})
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


def until_ready(product: Installation, name: str, count: int) -> set[str]:
    def ready() -> set[str] | None:
        found = {name for name, pod in pods(product, name).items() if is_ready(pod)}
        return found if len(found) == count else None

    return until(f"{count} ready pods of {name}", ready, 120)


@pytest.mark.parametrize("version", ["never-registers", "registers-and-ends"])
def test_a_new_version_that_does_not_work_takes_no_good_worker_away(product: Installation, version: str) -> None:
    product.kube.apply(of_version(version, "good", product.worker_image, replicas=2))
    good = until_ready(product, version, 2)
    product.kube.apply(of_version(version, version, product.worker_image, replicas=2))

    def restarts() -> int:
        bad = [pod for name, pod in pods(product, version).items() if name not in good]
        return max(
            (status["restartCount"] for pod in bad for status in pod["status"].get("containerStatuses", ())), default=0
        )

    until("the new version to have failed three times", lambda: restarts() >= 3, 240)
    now = pods(product, version)
    assert {name for name in good if name in now and is_ready(now[name])} == good
    product.kube.apply(of_version(version, "good", product.worker_image, replicas=2))
    until_ready(product, version, 2)


def test_a_worker_stays_ready_while_the_operator_is_away_and_a_new_one_waits_for_it(product: Installation) -> None:
    kube = product.kube
    kube.apply(of_version("alone", "good", product.worker_image, replicas=1))
    (before,) = until_ready(product, "alone", 1)
    kube.kubectl("scale", "deployment", product.deployment, "-n", product.namespace, "--replicas=0")
    try:
        until("no operator", lambda: not kube.items("pods", "-n", product.namespace, "-l", OPERATOR), 90)
        # What a person does meanwhile: one more pod, and one that is deleted.
        kube.kubectl("scale", "deployment", "alone-workers", "-n", NAMESPACE, "--replicas=2")
        (new,) = until("a second pod", lambda: set(pods(product, "alone")) - {before}, 60)

        def unready_probes() -> list[dict[str, Any]]:
            told = kube.items("events", "-n", NAMESPACE, "--field-selector", f"involvedObject.name={new}")
            return [event for event in told if event["reason"] == "Unhealthy"]

        until("it to be asked, and to be found not ready", unready_probes, 60)
        found = pods(product, "alone")
        assert is_ready(found[before])
        assert not is_ready(found[new])
        assert found[new]["status"]["containerStatuses"][0]["restartCount"] == 0
        kube.kubectl("delete", "pod", new, "-n", NAMESPACE, "--timeout=30s")  # an idle worker leaves at once
    finally:
        kube.kubectl("scale", "deployment", product.deployment, "-n", product.namespace, "--replicas=2")
        product.wait_ready()
    until_ready(product, "alone", 1)


def describe(product: Installation, name: str) -> str:
    return product.kube.kubectl("describe", "workerpools.tickwheel.io", name, "-n", NAMESPACE)


def until_stalled(product: Installation, name: str, reasons: set[str]) -> str:
    """The condition's message, once the pool is stalled for one of the reasons and an Event says so too."""

    def stalled() -> str | None:
        found = condition(product, name, "Stalled")
        return found["message"] if found.get("status") == "True" and found["reason"] in reasons else None

    message = until(f"{name} to be stalled: {reasons}", stalled, 150)
    until("a Warning Event", lambda: [word for word in reasons if f"Warning  {word}" in describe(product, name)], 60)
    return message


def test_a_pool_without_a_worker_says_what_is_missing(product: Installation) -> None:
    kube, image = product.kube, product.worker_image
    no_file = of_version("no-file", "good", image, progressDeadline="30s")
    no_file["spec"]["template"]["spec"]["containers"][0]["args"] = ["/handlers/none.py"]
    kube.apply(no_file, of_version("no-config-map", "none", image, progressDeadline="30s"))
    assert 'configmap "none" not found' in until_stalled(product, "no-config-map", {"FailedMount"})
    crashes = {"CrashLoopBackOff", "ContainerEnded"}
    assert "there is no file /handlers/none.py" in until_stalled(product, "no-file", crashes)
    # What a person does then.
    kube.apply(config_map("none", VERSIONS["good"]))
    until("it to get on", lambda: condition(product, "no-config-map", "Ready").get("status") == "True", 180)
    until("no longer stalled", lambda: condition(product, "no-config-map", "Stalled").get("status") == "False", 60)


def test_a_crash_loop_after_a_finished_rollout_stalls_the_pool(product: Installation) -> None:
    kube = product.kube
    kube.apply(
        config_map("changes", VERSIONS["good"]),
        of_version("changes", "changes", product.worker_image, progressDeadline="30s"),
    )
    until("it to be settled", lambda: condition(product, "changes", "Reconciling").get("status") == "False", 120)
    kube.apply(config_map("changes", "raise RuntimeError('there is no database')"))
    (pod,) = pods(product, "changes")
    kube.kubectl("delete", "pod", pod, "-n", NAMESPACE)
    assert "there is no database" in until_stalled(product, "changes", {"CrashLoopBackOff", "ContainerEnded"})
    assert condition(product, "changes", "Ready")["status"] == "False"


def test_a_worker_that_the_gateway_refuses_says_why(product: Installation) -> None:
    product.kube.apply(of_version("refused", "bad-token", product.worker_image, progressDeadline="30s"))
    assert "the gateway refuses its worker: InvalidToken" in until_stalled(product, "refused", {"InvalidToken"})
