"""What a replica says of who leads."""

from __future__ import annotations

import secrets
from pathlib import Path

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore
from tickwheel_operator.runtime.backend import HostBackend
from tickwheel_operator.runtime.partition import PartitionHost


class _Term:
    epoch_floor = 0
    fresh = True

    def is_fresh(self) -> bool:
        return self.fresh


async def test_a_leader_whose_lease_is_not_fresh_sends_no_worker_to_another_ledger(tmp_path: Path) -> None:
    clock, term = SystemClock(), _Term()
    store = SqliteSegmentStore(tmp_path / "ledger.sqlite")
    ledger = Ledger(store, partition=0, leader="a", clock=clock, nonces=lambda: secrets.token_hex(8))
    host = PartitionHost(ledger, term, clock)
    backend = HostBackend(lambda: host, lambda: ("http://rival:1", 7), lambda: "http://here:1", clock)
    await host.take_over(list)
    here = backend.leadership()
    assert (here.is_leader, here.ledger) == (True, host.ledger_identity)
    term.fresh = False  # it slept, or the API server does not answer
    away = backend.leadership()
    assert (away.is_leader, away.ledger, away.leader_url) == (False, "", "http://rival:1")
    await store.close()
