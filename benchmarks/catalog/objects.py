"""The objects of the catalog benchmark: one pool, and any number of tasks that look as users write them."""

from __future__ import annotations

import asyncio
from typing import Any

from kubernetes.aio.client import ApiClient, ApiException, CoreV1Api, CustomObjectsApi, V1Namespace, V1ObjectMeta

__all__ = ["NAMESPACE", "POOL", "create_all", "task"]

NAMESPACE = "catalog-bench"
POOL = "bench"
_AT_ONCE = 24


def task(number: int) -> dict[str, Any]:
    """Task `number`: of ten, seven are cron, two have a fixed rate, one runs by hand.

    840 expressions of one instant a year each, and rates of a week: they look like those of users, but hardly any is
    due while it is measured what it costs to have them.
    """
    spec: dict[str, Any] = {
        "pool": POOL,
        "handler": f"handler-{number % 20}",
        "parameters": {"shop": f"shop-{number}", "region": "north"},
        "delivery": {"timeout": "10m"},
        "retry": {"limit": 5},
    }
    match number % 10:
        case 9:
            pass
        case 7 | 8:
            spec["trigger"] = {"fixedRate": f"{168 * 3600 + number % 60}s"}
        case _:
            day = f"{number % 28 + 1} {number % 12 + 1}"
            spec["trigger"] = {"cron": f"{number % 60} {number % 24} {day} *", "timeZone": "Asia/Shanghai"}
    return {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "ScheduledTask",
        "metadata": {"name": f"task-{number:06d}", "namespace": NAMESPACE},
        "spec": spec,
    }


async def create_all(client: ApiClient, count: int) -> None:
    """Make the namespace, the pool and the tasks that do not exist yet."""
    api = CustomObjectsApi(client)
    try:
        await CoreV1Api(client).create_namespace(V1Namespace(metadata=V1ObjectMeta(name=NAMESPACE)))
    except ApiException as error:
        if error.status != 409:
            raise
    numbers = iter(range(count))
    pool = {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": POOL, "namespace": NAMESPACE},
        "spec": {},
    }

    async def create(plural: str, body: dict[str, Any]) -> None:
        try:
            await api.create_namespaced_custom_object("tickwheel.io", "v1alpha1", NAMESPACE, plural, body)
        except ApiException as error:
            if error.status != 409:
                raise

    async def worker() -> None:
        for number in numbers:
            await create("scheduledtasks", task(number))

    await create("workerpools", pool)
    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(worker())
