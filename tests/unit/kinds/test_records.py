"""What a status says of earlier runs, as the API server gives it, and as nobody should have written it."""

from __future__ import annotations

from typing import Any

import pytest

from tickwheel_operator.kinds.records import status_record
from tickwheel_operator.ledger.facts import SkipReason

STATUS: dict[str, Any] = {
    "observedGeneration": 3,
    "settledTime": "2026-11-30T10:00:00Z",
    "lastScheduleTime": "2026-11-30T09:59:59.250Z",
    "lastRun": {"name": "sync-1", "state": "Succeeded", "time": "2026-11-30T10:00:01Z"},
    "counters": {"succeeded": 7, "failed": 1, "cancelled": 2, "skipped": 4},
    "skips": [{"reason": "CatchUpLimit", "count": 4, "lastTime": "2026-11-30T09:00:00Z"}],
}
SETTLED_MS = 1_796_032_800_000


def test_a_status_says_what_is_settled_and_what_was_counted() -> None:
    found = status_record("sync", STATUS)
    assert found is not None
    assert (found.generation, found.settled_ms, found.last_scheduled_ms) == (3, SETTLED_MS, SETTLED_MS - 750)
    assert (found.succeeded, found.failed, found.cancelled) == (7, 1, 2)
    assert found.skips == ((SkipReason.CATCH_UP_LIMIT, 4, SETTLED_MS - 3_600_000),)
    assert (found.last_ended_ms, found.unfinished) == (SETTLED_MS + 1_000, False)


def test_the_run_of_the_last_instant_is_unfinished_while_the_status_shows_it_open() -> None:
    name = f"sync-{SETTLED_MS - 750}"
    for shown, unfinished in ((name, True), ("sync-k1f2", False)):
        found = status_record("sync", {**STATUS, "lastRun": {"name": shown, "state": "Running"}})
        assert found is not None
        assert found.unfinished is unfinished


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"observedGeneration": 1, "conditions": [], "nextScheduleTime": "2026-11-30T10:00:00Z"},
        {"settledTime": "yesterday"},
        {"settledTime": "9999-99-99T00:00:00Z"},
        {"settledTime": "0001-01-01T00:00:00+08:00"},
        {"settledTime": 7},
        {"settledTime": "2026-11-30T10:00:00Z", "counters": {"succeeded": "many"}},
        {"settledTime": "2026-11-30T10:00:00Z", "skips": [3]},
        {"settledTime": "2026-11-30T10:00:00Z", "lastRun": "none"},
    ],
)
def test_a_status_that_says_nothing_or_cannot_be_read_is_no_record(status: dict[str, Any]) -> None:
    assert status_record("sync", status) is None
