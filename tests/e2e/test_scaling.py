"""How many workers a pool has: by hand, by itself, and which of them go first. On real pods."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.e2e.kube import until
from tests.e2e.load import namespace_objects, pool, task
from tests.e2e.product import Installation

NAMESPACE = "scaling"


@pytest.fixture(scope="module")
def product(installed: Installation) -> Iterator[Installation]:
    installed.kube.apply(*namespace_objects(NAMESPACE))
    yield installed
    installed.kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def pods(product: Installation, name: str) -> list[dict[str, Any]]:
    """The pool's pods that are not on their way out."""
    found = product.kube.items("pods", "-n", NAMESPACE, "-l", f"tickwheel.io/pool={name}")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def status(product: Installation, name: str) -> dict[str, Any]:
    found: dict[str, Any] = product.kube.get("workerpools.tickwheel.io", name, "-n", NAMESPACE).get("status", {})
    return found


def run(name: str, of: str, **parameters: Any) -> dict[str, Any]:
    return {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "TaskRun",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"task": of, "parameters": parameters},
    }


def test_a_pool_is_scaled_by_hand_and_a_busy_worker_stays_while_idle_ones_go(product: Installation) -> None:
    kube = product.kube
    kube.apply(
        pool(NAMESPACE, "hand", product.worker_image, replicas=1),
        task(NAMESPACE, "long", "hand", "slow", None),
    )
    until("a worker", lambda: status(product, "hand").get("readyReplicas") == 1, 90)
    kube.kubectl("scale", "workerpools.tickwheel.io", "hand", "-n", NAMESPACE, "--replicas=3")
    until("three workers", lambda: status(product, "hand").get("readyReplicas") == 3, 90)
    # Only now: pods may take longer to start than it runs.
    kube.apply(run("busy", "long", seconds=20))
    worker = until(
        "it to be busy",
        lambda: kube.get("taskruns.tickwheel.io", "busy", "-n", NAMESPACE).get("status", {}).get("worker"),
        60,
    )
    kube.kubectl("scale", "workerpools.tickwheel.io", "hand", "-n", NAMESPACE, "--replicas=1")
    until("one worker", lambda: len(pods(product, "hand")) == 1, 60)
    assert pods(product, "hand")[0]["metadata"]["name"] == worker, "the busy one stayed"
    kube.kubectl("wait", "--for=condition=Succeeded", "taskruns.tickwheel.io/busy", "-n", NAMESPACE, "--timeout=60s")
    assert kube.get("taskruns.tickwheel.io", "busy", "-n", NAMESPACE)["status"]["attempts"] == 1


def test_an_autoscaled_pool_starts_from_zero_and_is_warm_before_a_known_instant(
    product: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    kube = product.kube
    scaling = {
        "minReplicas": 0, "maxReplicas": 3, "targetBacklogPerSlot": 2, "warmUp": "30s", "scaleDownDelay": "10s",
    }  # fmt: skip
    at = (datetime.now(UTC) + timedelta(seconds=50)).replace(microsecond=0)
    known = task(NAMESPACE, "known", "auto", "quick", None)
    known["spec"]["trigger"] = {"once": {"at": at.isoformat().replace("+00:00", "Z")}}
    kube.apply(pool(NAMESPACE, "auto", product.worker_image, autoscaling=scaling), known)
    time.sleep(5)
    assert pods(product, "auto") == [], "nothing is due yet"
    until("workers before the instant", lambda: status(product, "auto").get("readyReplicas", 0) > 0, 60)
    ahead = (at - datetime.now(UTC)).total_seconds()
    assert ahead > 0

    def lateness() -> list[str]:
        """Of its runs, once it is known: a run is made, and may be shown, ahead of its instant."""
        found = kube.items("taskruns.tickwheel.io", "-n", NAMESPACE, "--field-selector", "spec.task=known")
        return [shown["status"]["lateness"] for shown in found if "lateness" in shown.get("status", {})]

    until(
        "the run",
        lambda: kube.get("scheduledtasks.tickwheel.io", "known", "-n", NAMESPACE).get("status", {}).get("lastRun"),
        90,
    )
    (late,) = until("its record", lateness, 60)
    until("none to be left", lambda: pods(product, "auto") == [], 60)
    with capsys.disabled():
        print(
            f"\n  autoscaled from 0: warm {ahead:.0f} s before the known instant, which started {late} late; back at 0"
        )


def test_a_backlog_makes_workers(product: Installation) -> None:
    kube = product.kube
    scaling = {
        "minReplicas": 0, "maxReplicas": 3, "targetBacklogPerSlot": 1, "warmUp": "20s", "scaleDownDelay": "10s",
    }  # fmt: skip
    kube.apply(
        pool(NAMESPACE, "burst", product.worker_image, autoscaling=scaling, slots=2),
        task(NAMESPACE, "burst", "burst", "slow", None),
        *(run(f"burst-{number}", "burst", seconds=8) for number in range(12)),
    )
    until("three workers", lambda: status(product, "burst").get("readyReplicas") == 3, 90)
    kube.kubectl(
        "wait", "--for=condition=Succeeded",
        *(f"taskruns.tickwheel.io/burst-{number}" for number in range(12)), "-n", NAMESPACE,
        "--timeout=120s", timeout=150,
    )  # fmt: skip
    attempts = {
        kube.get("taskruns.tickwheel.io", f"burst-{number}", "-n", NAMESPACE)["status"]["attempts"]
        for number in range(12)
    }
    until("none to be left", lambda: pods(product, "burst") == [], 60)
    assert attempts == {1}, "nothing was lost while the pool shrank"


def test_what_kubectl_top_shows_is_in_the_pools_status(product: Installation) -> None:
    if "metrics.k8s.io" not in product.kube.kubectl("api-versions"):
        pytest.skip("the cluster serves no metrics.k8s.io")
    product.kube.apply(pool(NAMESPACE, "hand", product.worker_image, replicas=1))
    usage = until("usage", lambda: status(product, "hand").get("usage"), 90)
    assert usage["memory"].endswith("Mi")
    # It fails while the last scrape is missing.
    top = ("top", "pods", "-n", NAMESPACE, "-l", "tickwheel.io/pool=hand", "--no-headers")
    until("kubectl top to show it", lambda: product.kube.kubectl(*top).splitlines(), 90)
