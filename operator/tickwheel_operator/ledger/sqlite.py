"""Segments in one SQLite file: the ledger of dev mode, where one process runs everything and no cluster is needed.

All calls of the file go through one worker thread, so that the event loop never waits for the disk. Put-if-absent is
the primary key (partition, sequence); a create has returned only when SQLite has synced it (WAL, synchronous FULL).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tickwheel_operator.ledger.protocol import (
    LedgerCorrupt,
    LedgerError,
    OutcomeUnknown,
    Segment,
    SegmentExists,
    SegmentHeader,
    StoreRefused,
    StoreUnavailable,
    segment_name,
)

__all__ = ["SqliteSegmentStore"]

_T = TypeVar("_T")
_BUSY_S = 5.0
"""How long SQLite waits for another process that writes the same file."""
_DELETE_BATCH = 500
"""Variables of one statement; SQLite takes 999 in its oldest builds."""

_LITTLE_BYTES = 256 * 1024
"""A disk with less room than this is full."""

_SCHEMA = """
create table if not exists segments (
    partition integer not null,
    sequence integer not null,
    kind text not null,
    epoch integer not null,
    nonce text not null,
    chunk integer not null,
    chunks integer not null,
    generation integer not null,
    created_ms integer not null,
    data blob not null,
    primary key (partition, sequence)
)
"""
_FIELDS = (
    "partition", "sequence", "kind", "epoch", "nonce", "chunk", "chunks", "generation", "created_ms", "size_bytes",
)  # fmt: skip
_HEADER = "partition, sequence, kind, epoch, nonce, chunk, chunks, generation, created_ms, length(data)"


class SqliteSegmentStore:
    """A `SegmentStore` in the file at `path`, which is made where it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-sqlite")
        self._database: sqlite3.Connection | None = None
        self.problem = ""
        """Why the last call did not succeed; empty when it did. The ledger tries it again, and a person should know
        meanwhile. That the file can be read is no proof that it can be written: only a write ends a write's problem."""
        self._write_failed = False

    async def create(self, segment: Segment) -> None:
        await self._run(lambda database: self._create(database, segment), writes=True)

    async def read(self, partition: int, sequence: int) -> Segment | None:
        rows = await self._run(
            lambda database: database.execute(
                f"select {_HEADER}, data from segments where partition = ? and sequence = ?",  # noqa: S608
                (partition, sequence),
            ).fetchall()
        )
        return self._read_as(Segment, (*_FIELDS, "data"), rows[0]) if rows else None

    async def list(self, partition: int) -> list[SegmentHeader]:
        rows = await self._run(
            lambda database: database.execute(
                f"select {_HEADER} from segments where partition = ? order by sequence",  # noqa: S608
                (partition,),
            ).fetchall()
        )
        return [self._read_as(SegmentHeader, _FIELDS, row) for row in rows]

    def _read_as(self, kind: type[_T], fields: Sequence[str], row: Sequence[Any]) -> _T:
        """The row as what it should be: SQLite takes any type into any column, and an editor any text."""
        try:
            return msgspec.convert(dict(zip(fields, row, strict=True)), kind)
        except msgspec.ValidationError as error:
            name = f"p{row[0]}-{row[1]}" if not isinstance(row[1], int) else segment_name(int(row[0]), row[1])
            raise LedgerCorrupt(f"{name}: its row in {self._path} is not a segment: {error}") from error

    async def delete(self, partition: int, sequences: Sequence[int]) -> None:
        for start in range(0, len(sequences), _DELETE_BATCH):
            batch = sequences[start : start + _DELETE_BATCH]
            marks = ", ".join("?" * len(batch))
            statement = f"delete from segments where partition = ? and sequence in ({marks})"  # noqa: S608
            await self._run(partial(_execute, statement, (partition, *batch)), writes=True)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    # --- in the worker thread ------------------------------------------------------------------------------------

    async def _run(self, operation: Callable[[sqlite3.Connection], _T], *, writes: bool = False) -> _T:
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, operation)
        except (StoreUnavailable, OutcomeUnknown) as error:
            self.problem = str(error)
            self._write_failed |= writes
            raise
        if writes or not self._write_failed:
            self.problem, self._write_failed = "", False
        return done

    def _guarded(self, operation: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._errors():
            if self._database is None:
                self._database = self._open()
            return operation(self._database)

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Without implicit transactions: each statement commits by itself.
        database = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        # Text that is not UTF-8 shows as such, instead of as a failure that would be tried again for ever.
        database.text_factory = partial(str, encoding="utf-8", errors="replace")
        _switch_to_wal(database)
        database.execute("pragma synchronous = full")
        database.execute(_SCHEMA)
        return database

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _create(self, database: sqlite3.Connection, segment: Segment) -> None:
        try:
            database.execute(
                "insert into segments values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    segment.partition, segment.sequence, segment.kind.value, segment.epoch, segment.nonce,
                    segment.chunk, segment.chunks, segment.generation, segment.created_ms, segment.data,
                ),
            )  # fmt: skip
        except sqlite3.IntegrityError as error:
            raise SegmentExists(
                f"{segment_name(segment.partition, segment.sequence)} exists in {self._path}"
            ) from error

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors in the words of the seam."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from error
        except OSError as error:
            raise StoreRefused(f"{self._path.parent} cannot be made for the ledger: {error}") from error

    def _translated(self, error: sqlite3.Error) -> LedgerError:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreUnavailable(f"{self._path} is locked by another process: {error}; is a second one running?")
        if code == sqlite3.SQLITE_FULL:
            return StoreUnavailable(self._full())
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return LedgerCorrupt(f"{self._path} is damaged: {error}; restore it, or delete it to begin anew")
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
            return StoreRefused(f"{self._path} cannot be written: {error}; check the folder and its permissions")
        if code == sqlite3.SQLITE_TOOBIG:
            return StoreRefused(f"{self._path}: {error}; lower the ledger's segment size")
        if code == sqlite3.SQLITE_IOERR and _is_full(self._path.parent):
            return OutcomeUnknown(self._full())
        return OutcomeUnknown(f"{self._path}: {error}")

    def _full(self) -> str:
        return f"the disk of {self._path} is full: nothing can be recorded, so nothing starts; free some space"


def _is_full(folder: Path) -> bool:
    """SQLite does not always know why a write failed, such as one to the file that its processes share."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free < _LITTLE_BYTES
    return False


def _execute(statement: str, values: tuple[Any, ...], database: sqlite3.Connection) -> None:
    database.execute(statement, values)


def _switch_to_wal(database: sqlite3.Connection) -> None:
    """Once for each file. SQLite does not wait for other connections here, whatever its time-out, so this does."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            database.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
