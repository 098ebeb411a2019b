"""A ledger at its limit: submissions are refused until open runs have ended and a checkpoint has let go of them."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from pathlib import Path

import msgspec

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec
from tickwheel_operator.ledger.limits import LedgerLimits
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore
from tickwheel_operator.runtime.partition import PartitionHost

_SPEC = TaskSpec(uid="u-1", namespace="default", name="t", generation=1, created_ms=0, pool="p", handler="h")
_WORKER = m.WorkerSeen(key=m.WorkerKey("default", "p", "w"), instance="i", handlers=("h",), slots=500)
_LIMIT = 200_000


class _Term:
    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


async def test_a_full_ledger_refuses_submissions_until_what_is_done_is_let_go(tmp_path: Path) -> None:
    clock = SystemClock()
    store = SqliteSegmentStore(tmp_path / "ledger.sqlite")
    ledger = Ledger(
        store, partition=0, leader="a", clock=clock, nonces=lambda: secrets.token_hex(8),
        limits=LedgerLimits(max_bytes=_LIMIT),
    )  # fmt: skip
    host = PartitionHost(ledger, _Term(), clock)
    pool = m.PoolApplied(spec=PoolSpec(namespace="default", name="p"))
    await host.take_over(lambda: [pool, m.TaskApplied(spec=_SPEC)])
    leading = asyncio.create_task(host.run())
    requests = itertools.count()

    async def submit(key: str) -> m.Effect:
        parameters = msgspec.json.encode({"x": secrets.token_hex(10_000)})
        run = m.Submission(key=key, scheduled_ms=clock.now_ms(), parameters=parameters)
        return await host.call(m.Submit(request=next(requests), namespace="default", name="t", runs=[run]))

    async with asyncio.timeout(60):
        made = 0
        while isinstance(answer := await submit(f"k{made}"), m.Submitted):
            made += 1
        assert isinstance(answer, m.CommandRefused)
        assert answer.reason is m.RefusalReason.BACKLOG_FULL
        assert "the ledger retains" in answer.detail
        assert host.intake_held
        assert made < 30, "each takes 10 kB and more"

        pull = m.Pull(request=next(requests), worker=_WORKER, free=500, until_ms=clock.now_ms() + 5_000)
        pulled = await host.call(pull)
        assert isinstance(pulled, m.Pulled)
        done = [delivery.token for delivery in pulled.deliveries]
        assert len(done) == made
        await host.call(m.Report(request=next(requests), worker=_WORKER, succeeded=done))
        while ledger.stats.checkpoints == 0 or host._checkpoints._writing is not None:
            await asyncio.sleep(0.01)  # the one that the full store asked for at once
        host._checkpoints._relief_from = 0.0  # a minute later
        host._wake.set()
        while host.intake_held:
            await asyncio.sleep(0.01)
        assert isinstance(await submit("again"), m.Submitted)

    assert ledger.stats.checkpoints >= 1
    host.stop()
    await leading
    await store.close()
