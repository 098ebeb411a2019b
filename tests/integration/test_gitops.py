"""What a GitOps tool does with tasks and pools, by kubectl, beside an operator that writes their statuses meanwhile.

The manifests are `examples/cluster`, with faster schedules so that a test need not wait. There is no kubelet: the
worker is a process, so that the tasks' pool has no template here, and the pool with the template gets no pods. Argo
CD's and Flux's health checks are asked of the objects as they are stored.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.installation import get, install_operator
from tests.integration.processes import Crew
from tests.integration.soak.account import Book
from tests.integration.soak.scenario import until
from tests.integration.soak.tail import LedgerTail
from tests.unit.gitops.judges import argocd, flux

from tickwheel_cluster import Access, find_binaries
from tickwheel_operator.api import KINDS, parse, unsupported
from tickwheel_operator.api import documents as read

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "cluster"
SYSTEM, NAMESPACE = "gitops-system", "shops"
PLURALS = {kind.kind_name(): kind.presentation.plural for kind in KINDS}


@dataclass
class Scene:
    """The examples, applied; an operator and a worker at work."""

    cluster: Access
    folder: Path
    """The manifests, as a checkout would hold them."""
    tail: LedgerTail

    def kubectl(self, *arguments: str, status: int = 0, **environment: str) -> str:
        """What it prints. Its exit status must be the given one."""
        command = [str(find_binaries() / "kubectl"), f"--kubeconfig={self.cluster.admin_kubeconfig}", *arguments]
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder.parent), **environment},  # for its cache
        )
        assert answer.returncode == status, answer.stdout + answer.stderr
        return answer.stdout

    @property
    def manifests(self) -> list[str]:
        """The files with our kinds, as options of kubectl."""
        return [f"-f={self.folder / name}" for name in ("20-pool.yaml", "30-tasks.yaml", "40-time.yaml")]

    def stored(self) -> dict[tuple[str, str], dict[str, Any]]:
        """All our objects that the manifests name, by kind and name."""
        listed = [(kind, item) for kind in ("ScheduledTask", "WorkerPool") for item in self.items(kind)]
        return {(kind, item["metadata"]["name"]): item for kind, item in listed}

    def items(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get(self.cluster, kind, NAMESPACE)["items"]
        return found

    def fires(self, task: str) -> int:
        """Runs of the task so far, as the ledger has them."""
        return sum(sum(t.runs.values()) for t in Book(self.tail.segments()).tasks.values() if t.name == task)


@pytest.fixture(scope="module")
def scene(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("gitops")
    checkout = folder / "checkout"
    shutil.copytree(EXAMPLES, checkout)
    tasks, pools = checkout / "30-tasks.yaml", checkout / "20-pool.yaml"
    text = tasks.read_text(encoding="utf-8")
    assert "{fixedRate: 2s}" in text and "{fixedRate: 7s}" in text
    text = text.replace("{fixedRate: 2s}", "{fixedRate: 200ms}").replace("{fixedRate: 7s}", "{fixedRate: 1s}")
    tasks.write_text(text)
    pool = yaml.safe_load(pools.read_text(encoding="utf-8"))
    external = copy.deepcopy(pool)
    del external["spec"]["template"]
    pool["metadata"]["name"] = "with-pods"
    pools.write_text(yaml.safe_dump_all([external, pool]))
    install_operator(cluster, SYSTEM)
    with LedgerTail(cluster, SYSTEM) as tail, Crew(cluster, folder, system=SYSTEM, namespace=NAMESPACE) as crew:
        operator = crew.operator("leader")
        scene = Scene(cluster, checkout, tail)
        scene.kubectl("apply", "-f", str(checkout))
        operator.wait_ready()
        crew.worker("w-0", pool="shops", account="shop-worker", handlers=checkout / "handlers.py", environment={})
        yield scene


def test_the_examples_are_supported_and_the_handlers_are_those_of_the_config_map() -> None:
    kinds = set()
    for path in sorted(EXAMPLES.rglob("*.yaml")):
        for document in (found.body for found in read(path.read_text(encoding="utf-8"))):
            if document["kind"] in PLURALS:
                resource = parse(document)
                assert unsupported(resource) == []
                kinds.add(resource.kind_name())
            elif document["kind"] == "ConfigMap":
                assert document["data"]["handlers.py"] == (EXAMPLES / "handlers.py").read_text(encoding="utf-8")
                kinds.add("ConfigMap")
    assert kinds == {"Calendar", "ConfigMap", "ScheduledTask", "TaskRun", "WorkerPool"}


def test_the_health_checks_agree_with_what_the_operator_wrote(scene: Scene) -> None:
    tasks = ("hello", "shop-report", "flaky", "on-demand")
    wait = ("wait", "-n", NAMESPACE, "--timeout=60s")
    scene.kubectl(*wait, "--for=condition=Ready", *(f"scheduledtasks.tickwheel.io/{name}" for name in tasks))
    for name in tasks:
        task = scene.stored()["ScheduledTask", name]
        assert (argocd(task)[0], flux(task)) == ("Healthy", "Current")
    until("the pool's status", lambda: _verdict(scene, "shops") == ("Healthy", "Current"))
    until("the other pool's pods to be missed", lambda: _verdict(scene, "with-pods") == ("Progressing", "InProgress"))

    scene.kubectl("apply", "-f", str(scene.folder / "runs" / "on-demand.yaml"))
    scene.kubectl(*wait, "--for=condition=Succeeded", "taskruns.tickwheel.io/first")
    (run,) = (item for item in scene.items("TaskRun") if item["metadata"]["name"] == "first")
    assert (argocd(run)[0], flux(run)) == ("Healthy", "Current")
    assert run["status"]["result"]["rows"] == 500_000


def test_what_was_applied_does_not_drift_while_statuses_are_written(scene: Scene) -> None:
    before = scene.stored()
    key = ("ScheduledTask", "hello")
    until("a status to be written", lambda: scene.stored()[key].get("status") != before[key].get("status"))
    again = scene.kubectl("apply", "-f", str(scene.folder))
    assert {line.rpartition(" ")[2] for line in again.splitlines()} == {"unchanged"}
    assert scene.kubectl("diff", "-f", str(scene.folder)) == ""
    after = scene.stored()
    assert after.keys() == before.keys()
    for key, stored in after.items():
        assert stored["metadata"]["generation"] == 1
        assert stored["spec"] == before[key]["spec"]


def test_a_server_side_apply_of_the_same_manifests_changes_nothing(scene: Scene) -> None:
    apply = ("apply", "--server-side", "--field-manager=gitops", *scene.manifests)
    scene.kubectl(*apply)  # it takes over from `kubectl apply`, without conflicts
    quiet = ("ScheduledTask", "on-demand")  # of which no status is written meanwhile: it has told of all its runs
    runs = [run for run in scene.items("TaskRun") if run["spec"]["task"] == "on-demand"]
    until("its last status", lambda: _succeeded(scene.stored()[quiet]) == len(runs))
    before = scene.stored()
    scene.kubectl(*apply)
    after = scene.stored()
    for key, stored in after.items():
        assert stored["metadata"]["generation"] == before[key]["metadata"]["generation"]
        assert _entry(stored, "gitops") == _entry(before[key], "gitops"), "not even the time of the apply"
    assert after[quiet]["metadata"]["resourceVersion"] == before[quiet]["metadata"]["resourceVersion"]
    for stored in after.values():
        others = {entry["manager"] for entry in stored["metadata"]["managedFields"] if not entry.get("subresource")}
        assert others <= {"gitops"}, "the operator owns no field outside of the status"


def test_what_is_removed_from_the_folder_is_pruned_and_stops_firing(scene: Scene) -> None:
    def sync() -> str:
        options = ("--server-side", "--field-manager=gitops", "--prune", "--applyset=configmaps/shops", "-n", NAMESPACE)
        return scene.kubectl("apply", *options, *scene.manifests, KUBECTL_APPLYSET="true")

    sync()
    until("it to fire", lambda: scene.fires("hello") > 5)
    tasks = scene.folder / "30-tasks.yaml"
    kept = [d for d in yaml.safe_load_all(tasks.read_text(encoding="utf-8")) if d["metadata"]["name"] != "hello"]
    tasks.write_text(yaml.safe_dump_all(kept))
    uid = scene.stored()["ScheduledTask", "hello"]["metadata"]["uid"]

    def views() -> list[dict[str, Any]]:
        return [item for item in scene.items("TaskRun") if item["spec"].get("task") == "hello"]

    until("its runs to be shown", lambda: bool(views()))
    for view in views():  # the garbage collector takes them with their task; there is none here
        assert [owner["uid"] for owner in view["metadata"]["ownerReferences"]] == [uid]
    assert "scheduledtask.tickwheel.io/hello pruned" in sync()
    assert ("ScheduledTask", "hello") not in scene.stored(), "nothing holds it back: the operator sets no finalizer"

    def has_stopped() -> bool:
        fired, still = scene.fires("hello"), scene.fires("flaky")
        until("the other task to fire on", lambda: scene.fires("flaky") >= still + 2)
        return scene.fires("hello") == fired

    until("it to stop firing", has_stopped)


def _verdict(scene: Scene, pool: str) -> tuple[str, str]:
    stored = scene.stored()["WorkerPool", pool]
    return argocd(stored)[0], flux(stored)


def _succeeded(stored: dict[str, Any]) -> int | None:
    """How many of the task's runs its status says."""
    return stored.get("status", {}).get("counters", {}).get("succeeded")


def _entry(stored: dict[str, Any], manager: str) -> dict[str, Any]:
    """The record of what the manager owns."""
    return next(entry for entry in stored["metadata"]["managedFields"] if entry["manager"] == manager)
