"""Tickwheel beside Kubernetes' own CronJob and Job, on the same real cluster: `make bench-cluster`.

Two questions: how long after its instant does a scheduled run really begin, and how many runs a second get done. The
cluster is the one of the e2e tests (a given kubeconfig, kind, or the local provider in network namespaces of its own),
the product is installed by Helm. Each stage is bounded in count and time. Prints one table with the ratios and keeps
the figures as JSON. See README.md for what is measured and what is fair about it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "cluster"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from tests.e2e.kube import until  # noqa: E402
from tests.e2e.load import namespace_objects, pool, task  # noqa: E402
from tests.e2e.product import Installation, installed_product  # noqa: E402
from tests.e2e.timeline import Timeline  # noqa: E402

NAMESPACE = "bench"
HANDLERS = (Path(__file__).parent / "handlers.py").read_text()


def main() -> None:
    options = _options()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="tickwheel-bench-cluster-") as folder:
        console.print("bringing up the cluster and the product")
        with installed_product(Path(folder)) as product, _namespace(product):
            figures: dict[str, Any] = {"tickwheel": {}, "kubernetes": {}}
            console.print(f"start latency: {options.schedules} schedules a minute each, for {options.minutes} minutes")
            figures["kubernetes"] |= _cron_jobs(product, options.schedules, options.minutes)
            figures["tickwheel"] |= _scheduled_tasks(product, options.schedules, options.minutes)
            console.print(
                f"throughput: {options.jobs} Jobs; {options.tasks} tasks of 10 runs/s for {options.seconds} s"
            )
            figures["kubernetes"] |= _jobs(product, options.jobs)
            figures["tickwheel"] |= _runs(product, options.tasks, options.seconds)
    console.print(_table(figures))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedules", type=int, default=5, help="CronJobs and ScheduledTasks that fire each minute")
    parser.add_argument("--minutes", type=int, default=2, help="how long they do, 1 to 30")
    parser.add_argument("--jobs", type=int, default=60, help="Jobs in the throughput stage, 1 to 500")
    parser.add_argument("--tasks", type=int, default=100, help="tasks that fire ten times a second each, 1 to 1,000")
    parser.add_argument("--seconds", type=int, default=20, help="how long they are counted, 1 to 300")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    return parser.parse_args()


@contextmanager
def _namespace(product: Installation) -> Iterator[None]:
    objects = namespace_objects(NAMESPACE)
    objects[-1]["data"]["handlers.py"] = HANDLERS
    product.kube.apply(*objects, pool(NAMESPACE, "bench", product.worker_image, replicas=2, slots=50))
    ready = "{.status.slots.total}=100"
    product.kube.kubectl(
        "wait", f"--for=jsonpath={ready}", "workerpools.tickwheel.io/bench", "-n", NAMESPACE, "--timeout=120s"
    )
    try:
        yield
    finally:
        product.kube.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


# --- Kubernetes' own ---


def _pod_template(product: Installation) -> dict[str, Any]:
    """The lightest container that the image can run (it has no /bin/true): it exits at once."""
    container = {
        "name": "work",
        "image": product.worker_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-I", "-S", "-c", ""],
    }
    return {"spec": {"restartPolicy": "Never", "containers": [container], "terminationGracePeriodSeconds": 0}}


def _cron_jobs(product: Installation, schedules: int, minutes: int) -> dict[str, float]:
    kube = product.kube
    _to_the_minute(20)
    for number in range(schedules):
        kube.apply(
            {
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "metadata": {"name": f"cron-{number}", "namespace": NAMESPACE},
                "spec": {
                    "schedule": "* * * * *",
                    "jobTemplate": {"spec": {"template": _pod_template(product)}},
                    "successfulJobsHistoryLimit": minutes,
                },
            }
        )
    wanted = schedules * minutes

    def finished() -> list[dict[str, Any]]:
        jobs = [job for job in kube.items("jobs", "-n", NAMESPACE) if job["status"].get("completionTime")]
        return jobs if len(jobs) >= wanted else []

    until("the CronJobs' runs", finished, minutes * 60 + 120, 2)
    late = []
    for pod in kube.items("pods", "-n", NAMESPACE, "-l", "batch.kubernetes.io/job-name"):
        state = pod["status"]["containerStatuses"][0]["state"].get("terminated")
        if state:
            started = _seconds(state["startedAt"])
            late.append((started - started // 60 * 60) * 1000)
    kube.kubectl("delete", "cronjobs", "--all", "-n", NAMESPACE)
    kube.kubectl("delete", "jobs", "--all", "-n", NAMESPACE)
    return {"start_p50_ms": statistics.median(late), "start_max_ms": max(late), "starts": len(late)}


def _jobs(product: Installation, count: int) -> dict[str, float]:
    kube = product.kube
    template = _pod_template(product)
    manifests = [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"job-{number}", "namespace": NAMESPACE},
            "spec": {"template": template, "backoffLimit": 0},
        }
        for number in range(count)
    ]
    with _processor_time() as used:
        began = time.monotonic()
        kube.apply(*manifests)

        def done() -> bool:
            return sum(bool(job["status"].get("succeeded")) for job in kube.items("jobs", "-n", NAMESPACE)) == count

        until("the Jobs", done, 60 + count * 3, 0.5)
        seconds = time.monotonic() - began
    kube.kubectl("delete", "jobs", "--all", "-n", NAMESPACE)
    return {"runs_per_s": count / seconds, "cpu_ms_per_run": used[0] * 1000 / count}


# --- Tickwheel ---


def _scheduled_tasks(product: Installation, schedules: int, minutes: int) -> dict[str, float]:
    kube = product.kube
    _to_the_minute(20)
    for number in range(schedules):
        scheduled = task(NAMESPACE, f"cron-{number}", "bench", "note-start", None)
        scheduled["spec"] |= {"trigger": {"cron": "* * * * *"}, "history": {"succeeded": minutes + 1, "failed": 1}}
        kube.apply(scheduled)
    wanted = schedules * minutes

    def shown() -> list[dict[str, Any]]:
        runs = [run for run in kube.items("taskruns.tickwheel.io", "-n", NAMESPACE) if run["status"].get("result")]
        return runs if len(runs) >= wanted else []

    runs = until("the tasks' runs", shown, minutes * 60 + 120, 2)
    late = [run["status"]["result"] - _seconds(run["status"]["scheduledTime"]) * 1000 for run in runs]
    kube.kubectl("delete", "scheduledtasks.tickwheel.io", "--all", "-n", NAMESPACE)
    return {"start_p50_ms": statistics.median(late), "start_max_ms": max(late), "starts": len(late)}


def _runs(product: Installation, tasks: int, seconds: float) -> dict[str, float]:
    """Tasks that fire ten times a second each: what is fired, leased, executed and durable in a span of time."""
    kube = product.kube
    timeline = Timeline(product.tail, NAMESPACE)
    kube.apply(*(task(NAMESPACE, f"run-{number}", "bench", "note-start", "100ms") for number in range(tasks)))
    until("all of them to have run", lambda: timeline.ended() > tasks * 20, 120, 1)
    with _processor_time() as used:
        before, began = timeline.ended(), time.monotonic()
        time.sleep(seconds)
        done, took = timeline.ended() - before, time.monotonic() - began
    kube.kubectl("delete", "scheduledtasks.tickwheel.io", "--all", "-n", NAMESPACE)
    return {"offered_per_s": tasks * 10.0, "runs_per_s": done / took, "cpu_ms_per_run": used[0] * 1000 / done}


# --- measuring ---


def _to_the_minute(at_least_s: float) -> None:
    """Wait until the next full minute is far enough off to set everything up before it."""
    while 60 - time.time() % 60 < at_least_s:
        time.sleep(0.5)


@contextmanager
def _processor_time() -> Iterator[list[float]]:
    """Seconds of processor time of the whole machine, all nodes and the control plane."""

    def busy_s() -> float:
        user, nice, system, _, _, irq, softirq, *_ = map(
            int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        )
        return (user + nice + system + irq + softirq) / 100

    used = [0.0]
    before = busy_s()
    yield used
    used[0] = busy_s() - before


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant.replace("Z", "+00:00")).timestamp()


def _table(figures: dict[str, dict[str, float]]) -> Table:
    ours, theirs = figures["tickwheel"], figures["kubernetes"]
    table = Table(title="the same cluster, one after the other")
    for column in ("", "Tickwheel", "CronJob / Job", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for name, key, better in (
        ("instant to handler start, p50 ms", "start_p50_ms", "less"),
        ("instant to handler start, worst ms", "start_max_ms", "less"),
        ("runs/s", "runs_per_s", "more"),
        ("processor ms a run, whole machine", "cpu_ms_per_run", "less"),
    ):
        ratio = theirs[key] / ours[key] if better == "less" else ours[key] / theirs[key]
        table.add_row(name, f"{ours[key]:,.1f}", f"{theirs[key]:,.1f}", f"{ratio:,.0f}x")
    return table


if __name__ == "__main__":
    main()
