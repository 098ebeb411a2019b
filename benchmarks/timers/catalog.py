"""Many ScheduledTask objects on a real API server: how long an operator takes to start, and what it keeps and writes.

Called by `run.py`; the objects and the operator without gateway and election are those of `benchmarks/catalog`. Two
lives, each in a process of its own: the first writes every object's status once, the second (a restart, or a
follower that takes over) finds all of them right and must write nothing.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "cluster")]

from benchmarks.catalog.objects import NAMESPACE, create_all, task  # noqa: E402
from benchmarks.timers.case_process import figures_of  # noqa: E402
from kubernetes.aio.client import CustomObjectsApi  # noqa: E402
from kubernetes.aio.config import new_client_from_config  # noqa: E402
from tests.integration.installation import install  # noqa: E402

from tickwheel_cluster import ControlPlane  # noqa: E402

__all__ = ["measure_catalog"]

_AT_ONCE = 16
"""Requests that are under way."""
_STEP = 10_000
"""Progress is told each time that so many were made."""
_WRITES_PER_S = 2_000.0
"""The first life's limit, above what the API server takes; the operator's own default is 20."""


def measure_catalog(tasks: int, *, idle_s: float, timeout_s: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Create the objects, then both lives, each with `idle_s` of idling; `timeout_s` is for each of the three."""
    with (
        tempfile.TemporaryDirectory(prefix="tickwheel-catalog-") as name,
        ControlPlane(Path(name) / "cluster") as cluster,
    ):
        folder = Path(name)
        install(cluster)
        result: dict[str, Any] = {"tasks": tasks}
        result["created_s"] = asyncio.run(_create(cluster.admin_kubeconfig, tasks, timeout_s, say))
        for life in ("first_life", "second_life"):
            say(f"an operator reads {tasks:,} tasks ({life.replace('_', ' ')})")
            result[life] = _life(folder, cluster.admin_kubeconfig, idle_s, timeout_s)
    return result


async def _create(kubeconfig: Path, tasks: int, timeout_s: float, say: Callable[[str], None]) -> float:
    client = await new_client_from_config(config_file=str(kubeconfig))
    api, numbers = CustomObjectsApi(client), iter(range(tasks))
    started = time.monotonic()

    async def some() -> None:
        for number in numbers:
            if number and number % _STEP == 0:
                say(f"{number:,} of {tasks:,} objects are created")
            await api.create_namespaced_custom_object(
                "tickwheel.io", "v1alpha1", NAMESPACE, "scheduledtasks", task(number)
            )

    try:
        await create_all(client, 0)  # the namespace and the pool
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(some())
    finally:
        await client.close()
    return round(time.monotonic() - started, 1)


def _life(folder: Path, kubeconfig: Path, idle_s: float, timeout_s: float) -> dict[str, Any]:
    command = [
        sys.executable, str(ROOT / "benchmarks" / "catalog" / "replica.py"), str(kubeconfig),
        str(folder / "ledger.sqlite"), "--writes-per-s", str(_WRITES_PER_S), "--idle-s", str(idle_s),
    ]  # fmt: skip
    return figures_of(command, what="an operator's life", timeout_s=timeout_s)
