"""A replica leads whose watch has not told of everything: what it has not heard of is not gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kubernetes.aio.client import ApiClient
from tests.integration.leading import PATIENCE_S, Objects, Replica, manual


async def test_a_leader_whose_watch_is_late_keeps_what_it_has_not_heard_of_and_removes_what_is_deleted(
    client: ApiClient, objects: Objects, tmp_path: Path
) -> None:
    first = Replica(client, objects.namespace, tmp_path / "ledger.sqlite")
    late = Replica(client, objects.namespace, tmp_path / "ledger.sqlite")
    try:
        await objects.create("WorkerPool", "shops", {})
        await late.follow()
        await late.hear_nothing()
        await first.start()
        for name in ("stays", "goes"):
            await objects.create("ScheduledTask", name, manual())
            await objects.create("TaskRun", f"{name}-once", {"task": name})
            await objects.until("TaskRun", f"{name}-once", lambda s: s.get("state") == "Pending")
        await first.stop()
        await objects.delete("ScheduledTask", "goes")

        await late.lead()
        state = late.host.engine.state
        assert {task.name for task in state.by_uid.values()} == {"stays", "goes"}
        async with asyncio.timeout(PATIENCE_S):
            while len(state.runs) > 1:
                await asyncio.sleep(0.05)
        assert [run.task.name for run in state.runs.values()] == ["stays"]
        assert (await late.pull("sync")).deliveries == [], "whose handler it is, the watch will tell"
        late.hear()
        await late.work("sync")

        status = await objects.until("TaskRun", "stays-once", lambda s: s.get("state") == "Succeeded")
        assert status["attempts"] == 1
    finally:
        await first.stop()
        await late.stop()
