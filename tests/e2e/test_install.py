"""A stranger's first minutes: the chart's own test, the examples, and what kubectl shows of it all."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import yaml
from tests.e2e.kube import until
from tests.e2e.product import NAMESPACE, RELEASE, ROOT, Installation

EXAMPLES = ROOT / "examples" / "cluster"


@pytest.fixture(scope="module")
def examples(installed: Installation) -> Iterator[Installation]:
    kube = installed.kube
    kube.kubectl("delete", "namespace", "shops", "--ignore-not-found")
    kube.kubectl("apply", "-f", str(EXAMPLES))
    yield installed
    kube.kubectl("delete", "-f", str(EXAMPLES), "--wait=false", "--ignore-not-found")


def test_the_charts_own_test_runs_a_task_end_to_end(installed: Installation) -> None:
    said = installed.kube.helm("test", RELEASE, "--namespace", NAMESPACE, "--logs", "--timeout", "3m")
    assert "Succeeded" in said
    left = ("workerpools.tickwheel.io", "--all-namespaces", "-l", "app.kubernetes.io/component=test")
    until("nothing to be left of it", lambda: installed.kube.items(*left) == [], 60)


def test_the_examples_run(examples: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    kube = examples.kube

    def all_ran() -> bool:
        tasks = [
            st
            for st in kube.items("scheduledtasks.tickwheel.io", "-n", "shops")
            if st["spec"].get("trigger", {}).keys() & {"fixedRate", "fixedDelay", "completion"}
        ]
        return bool(tasks) and all(st.get("status", {}).get("counters", {}).get("succeeded") for st in tasks)

    until("every periodic example to succeed", all_ran, 90)
    with capsys.disabled():
        print(f"\n  kubectl apply to the first success of every periodic example: {time.monotonic() - began:.0f} s")
    kube.kubectl("create", "-f", str(next((EXAMPLES / "runs").glob("*.yaml"))))
    runs = kube.items("taskruns.tickwheel.io", "-n", "shops", "--field-selector", "spec.task=on-demand")
    name = runs[0]["metadata"]["name"]
    kube.kubectl("wait", "--for=condition=Succeeded", f"taskruns.tickwheel.io/{name}", "-n", "shops", "--timeout=60s")


def test_what_kubectl_shows_reads_well(examples: Installation, tmp_path_factory: pytest.TempPathFactory) -> None:
    kube = examples.kube

    def conditions(kind: str, name: str) -> dict[str, str]:
        found = kube.get(kind, name, "-n", "shops").get("status", {}).get("conditions", ())
        return {condition["type"]: condition["status"] for condition in found}

    ready = {"Ready": "True", "Reconciling": "False", "Stalled": "False"}
    until("all workers", lambda: conditions("workerpools.tickwheel.io", "shops") == ready, 90)
    until("the task's conditions", lambda: conditions("scheduledtasks.tickwheel.io", "hello"), 60)
    pages = [
        kube.kubectl(
            "get",
            "scheduledtasks.tickwheel.io,workerpools.tickwheel.io,taskruns.tickwheel.io",
            "-n",
            "shops",
            "-o",
            "wide",
        ),
        kube.kubectl("describe", "scheduledtasks.tickwheel.io", "hello", "-n", "shops"),
        kube.kubectl("explain", "twp.spec.autoscaling"),
    ]
    (tmp_path_factory.getbasetemp() / "kubectl.txt").write_text("\n".join(pages))
    table, described, explained = pages
    lines = table.splitlines()
    assert next(line for line in lines if "scheduledtask.tickwheel.io/hello" in line).split()
    assert "Ready" in described
    assert "Conditions:" in described
    assert "minReplicas" in explained


def test_a_second_apply_changes_nothing(examples: Installation) -> None:
    said = examples.kube.kubectl("apply", "-f", str(EXAMPLES))
    assert {line.rsplit(maxsplit=1)[-1] for line in said.splitlines()} == {"unchanged"}
    assert examples.kube.kubectl("diff", "-f", str(EXAMPLES)) == ""


def test_a_dry_run_tells_all_that_is_wrong_at_once(examples: Installation) -> None:
    bad = {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "ScheduledTask",
        "metadata": {"name": "bad", "namespace": "shops"},
        "spec": {
            "pool": "shops",
            "handler": "hello",
            "trigger": {"cron": "61 * * * *", "timeZone": "Asia/Peking"},
            "execution": {"broadcast": {}},
        },
    }
    said = examples.kube.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(bad), check=False)
    for field in ("spec.trigger.cron", "spec.trigger.timeZone", "spec.execution.broadcast"):
        assert field in said
