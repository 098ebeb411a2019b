"""The stores that need no cluster, held to their contract, and the log on top of each."""

from __future__ import annotations

import sqlite3

import pytest
from tests.contract.ledger import LedgerContract
from tests.contract.memory_store import MemorySegmentStore
from tests.contract.segment_store import SegmentStoreContract, a_segment

from tickwheel_operator.ledger import sqlite
from tickwheel_operator.ledger.protocol import LedgerCorrupt, StoreRefused, StoreUnavailable
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore


@pytest.fixture(params=["memory", "sqlite"])
async def stores(request, tmp_path):
    made = []
    shared = {}

    def make():
        store = (
            MemorySegmentStore(shared)
            if request.param == "memory"
            else SqliteSegmentStore(tmp_path / "ledger" / "segments.db")
        )
        made.append(store)
        return store

    yield make
    for store in made:
        await store.close()


class TestSegmentStore(SegmentStoreContract):
    pass


class TestLedger(LedgerContract):
    pass


class TestSqliteAlone:
    async def test_segments_outlive_the_process(self, tmp_path):
        first = SqliteSegmentStore(tmp_path / "segments.db")
        await first.create(a_segment(1))
        await first.close()
        second = SqliteSegmentStore(tmp_path / "segments.db")
        assert await second.read(0, 1) == a_segment(1)
        await second.close()

    async def test_a_file_that_is_no_database_is_corruption(self, tmp_path):
        path = tmp_path / "segments.db"
        path.write_bytes(b"this is no database at all, but a text" * 50)
        store = SqliteSegmentStore(path)
        with pytest.raises(LedgerCorrupt, match="not a database"):
            await store.list(0)
        await store.close()

    async def test_a_place_that_cannot_be_written_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("")
        store = SqliteSegmentStore(tmp_path / "file" / "segments.db")
        with pytest.raises(StoreRefused, match="cannot be made"):
            await store.list(0)
        await store.close()

    async def test_what_is_wrong_with_writing_stays_said_until_something_is_written(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sqlite, "_BUSY_S", 0.05)
        path = tmp_path / "segments.db"
        store = SqliteSegmentStore(path)
        await store.create(a_segment(1))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        with pytest.raises(StoreUnavailable):
            await store.create(a_segment(2))
        assert await store.read(0, 1) == a_segment(1)
        assert "is locked by another process" in store.problem
        other.execute("rollback")
        other.close()
        await store.create(a_segment(2))
        assert store.problem == ""
        await store.close()
