"""An engine that fails half-way through a command: its term ends, and nothing of that command is written."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.engine.messages import Report, TaskRemoved, WorkerKey, WorkerSeen
from tickwheel_operator.ledger.facts import Skipped, SkipReason
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore
from tickwheel_operator.runtime.partition import PartitionHost, TermEnded


class _Term:
    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


async def test_a_term_ends_when_its_engine_fails_and_nothing_of_the_failed_command_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SystemClock()
    store = SqliteSegmentStore(tmp_path / "ledger.sqlite")
    ledger = Ledger(store, partition=0, leader="a", clock=clock, nonces=lambda: secrets.token_hex(8))
    host = PartitionHost(ledger, _Term(), clock)
    await host.take_over(list)
    leading = asyncio.create_task(host.run())
    await asyncio.sleep(0)
    before = ledger.last_sequence
    fail = Skipped(7, 0, 1, SkipReason.MISFIRED)  # of a task that no fact named
    monkeypatch.setitem(host.engine._handlers, Report, lambda command, effects: host.engine.journal.emit(fail))
    report = Report(request=1, worker=WorkerSeen(key=WorkerKey("n", "p", "w"), instance="i"))

    with pytest.raises(TermEnded):
        await host.call(report)
    with pytest.raises(KeyError):
        async with asyncio.timeout(30):
            await leading

    assert host._waiting == {}
    assert not host.leading
    host.post_all([TaskRemoved(uid="u")])  # nobody leads: no matter
    assert ledger.last_sequence == before
    with pytest.raises(TermEnded):
        await host.call(report)
    await store.close()
