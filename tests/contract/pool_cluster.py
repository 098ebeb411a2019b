"""The contract of `pools.cluster.PoolCluster` and of what stands in for it: whose Deployment is applied and deleted."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tickwheel_operator.api import WorkerPool
from tickwheel_operator.kube.errors import ApiRefused
from tickwheel_operator.pools.cluster import PoolCluster
from tickwheel_operator.pools.template import Surroundings, deployment

__all__ = ["deployments_are_applied_and_deleted_by_uid"]

_NAME = "kept-workers"


def _manifest(namespace: str, pool_uid: str, replicas: int, **metadata: str) -> dict[str, Any]:
    pool = WorkerPool.model_validate(
        {
            "apiVersion": "tickwheel.io/v1alpha1",
            "kind": "WorkerPool",
            "metadata": {"name": "kept", "namespace": namespace, "uid": pool_uid},
            "spec": {"template": {"spec": {"containers": [{"name": "worker", "image": "example.com/w:1"}]}}},
        }
    )
    manifest = deployment(pool, Surroundings(endpoint="https://t", has_ca=False), replicas)
    return {**manifest, "metadata": {**manifest["metadata"], **metadata}}


async def deployments_are_applied_and_deleted_by_uid(cluster: PoolCluster, namespace: str, pool_uid: str) -> None:
    """Hold it to that for WorkerPool `kept`, which has no Deployment yet."""
    assert await cluster.read(namespace, _NAME) is None
    with pytest.raises(ApiRefused) as absent:
        await cluster.apply(_manifest(namespace, pool_uid, 1, uid="1b4e28ba-2fa1-11d2-883f-0016d3cca427"))
    assert absent.value.status == 409
    made = copy.deepcopy(await cluster.apply(_manifest(namespace, pool_uid, 1)))
    uid = made["metadata"]["uid"]
    same = await cluster.apply(_manifest(namespace, pool_uid, 1))
    assert (same["metadata"]["uid"], same["metadata"]["generation"]) == (uid, made["metadata"]["generation"])
    changed = await cluster.apply(_manifest(namespace, pool_uid, 2, uid=uid))
    assert (changed["metadata"]["uid"], changed["spec"]["replicas"]) == (uid, 2)
    assert changed["metadata"]["generation"] == made["metadata"]["generation"] + 1
    with pytest.raises(ApiRefused) as another:
        await cluster.apply(_manifest(namespace, pool_uid, 3, uid="1b4e28ba-2fa1-11d2-883f-0016d3cca427"))
    assert another.value.status == 409
    await cluster.delete(namespace, _NAME, "1b4e28ba-2fa1-11d2-883f-0016d3cca427")
    found = await cluster.read(namespace, _NAME)
    assert found is not None and found["spec"]["replicas"] == 2
    await cluster.delete(namespace, _NAME, uid)
    await cluster.delete(namespace, _NAME, uid)
    assert await cluster.read(namespace, _NAME) is None
