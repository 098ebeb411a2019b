from __future__ import annotations

from tests.contract.pool_cluster import deployments_are_applied_and_deleted_by_uid
from tests.unit.pools.memory_cluster import MemoryCluster


async def test_deployments_in_memory_are_applied_and_deleted_as_real_ones() -> None:
    await deployments_are_applied_and_deleted_by_uid(MemoryCluster(), "shops", "uid-of-kept")
