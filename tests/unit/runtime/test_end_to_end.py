"""One thread through every layer that needs no cluster: a task fires, a worker does it, the result is in the ledger."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from pathlib import Path

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.engine.messages import PoolApplied, TaskApplied
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.sources import ByClock
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.gateway.config import GatewayConfig
from tickwheel_operator.gateway.server import Gateway
from tickwheel_operator.identity.callers import AllowAll, StaticTokenAuthenticator
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore
from tickwheel_operator.runtime.backend import HostBackend
from tickwheel_operator.runtime.partition import PartitionHost

HANDLERS = """
from tickwheel import task

@task("greet")
async def greet(ctx, name: str):
    return {"hello": name, "attempt": ctx.attempt}
"""


class _Term:
    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


def _ledger(store: SqliteSegmentStore, clock: SystemClock) -> Ledger:
    return Ledger(store, partition=0, leader="test", clock=clock, nonces=lambda: secrets.token_hex(8))


async def _replayed(path: Path, clock: SystemClock) -> State:
    """The state as a new leader finds it."""
    store = SqliteSegmentStore(path)
    opened = await _ledger(store, clock).open(0)
    state = State()
    async for batch in opened.segments:
        for fact in batch.facts:
            state.apply(fact)
    await store.close()
    return state


async def test_a_fired_task_is_done_by_a_worker_process_and_its_result_is_in_the_ledger(tmp_path: Path) -> None:
    clock = SystemClock()
    spec = TaskSpec(
        uid="u-1", namespace="default", name="greet", generation=1, created_ms=clock.now_ms(),
        source=ByClock(FixedRateTrigger(200, clock.now_ms())), pool="p", handler="greet",
        parameters=b'{"name":"world"}',
    )  # fmt: skip
    store = SqliteSegmentStore(tmp_path / "ledger.sqlite")
    host = PartitionHost(_ledger(store, clock), _Term(), clock)
    await host.take_over(lambda: [PoolApplied(spec=PoolSpec(namespace="default", name="p")), TaskApplied(spec=spec)])
    leading = asyncio.create_task(host.run())
    backend = HostBackend(lambda: host, lambda: ("", 0), lambda: f"http://127.0.0.1:{gateway.port}", clock)
    gateway = Gateway(backend, StaticTokenAuthenticator("secret"), AllowAll(), GatewayConfig(host="127.0.0.1", port=0))
    await gateway.start()
    (tmp_path / "handlers.py").write_text(HANDLERS)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tickwheel", str(tmp_path / "handlers.py"),
        env={
            **os.environ, "TICKWHEEL_ENDPOINT": f"http://127.0.0.1:{gateway.port}", "TICKWHEEL_TOKEN": "secret",
            "TICKWHEEL_NAMESPACE": "default", "TICKWHEEL_POOL": "p", "TICKWHEEL_WORKER_NAME": "w-0",
        },
    )  # fmt: skip

    async with asyncio.timeout(60):
        while not (host.engine.state.by_uid.get("u-1") and host.engine.state.by_uid["u-1"].succeeded >= 3):
            await asyncio.sleep(0.05)
        worker.terminate()
        assert await worker.wait() == 0
    await gateway.stop()
    host.stop()
    await leading
    await store.close()

    state = await _replayed(tmp_path / "ledger.sqlite", clock)
    task = state.by_uid["u-1"]
    assert task.succeeded >= 3
    assert task.history_succeeded[0].result == b'{"hello":"world","attempt":1}'
    assert task.history_succeeded[0].worker == "w-0"
    instants = [ended.scheduled_ms for ended in task.history_succeeded]
    assert len(instants) == len(set(instants))
