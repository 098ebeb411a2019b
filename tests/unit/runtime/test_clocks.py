"""A leader whose clock is behind that of the leader before says so."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.ledger.facts import Clock
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore
from tickwheel_operator.runtime.partition import PartitionHost


class _Term:
    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


@pytest.mark.parametrize(("ahead_ms", "told"), [(90_000, True), (0, False)])
async def test_a_leader_whose_clock_is_behind_the_last_facts_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ahead_ms: int, told: bool
) -> None:
    clock = SystemClock()
    store = SqliteSegmentStore(tmp_path / "ledger.sqlite")

    def ledger(leader: str) -> Ledger:
        return Ledger(store, partition=0, leader=leader, clock=clock, nonces=lambda: secrets.token_hex(8))

    before = ledger("before")
    await before.open(0)
    await before.append([Clock(clock.now_ms() + ahead_ms)])

    host = PartitionHost(ledger("after"), _Term(), clock)
    await host.take_over(list)

    assert ("s behind that of the leader before" in caplog.text) is told
    assert (host.clock_behind_ms > 80_000) is told
    await store.close()
