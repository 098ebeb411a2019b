"""From a log's segments to the state that they stand for, or to the one error that a person understands.

`runtime.partition` folds with it when it takes over, `ledger.inspect` when it verifies, so that both say the same.
Invariant: whatever is wrong with a checkpoint or with facts that can be decoded is `LedgerCorrupt`, and names the
segment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Protocol

from tickwheel_operator.ledger.facts import Fact
from tickwheel_operator.ledger.log import Opened
from tickwheel_operator.ledger.protocol import LedgerCorrupt

__all__ = ["Folded", "fold", "replay", "restore"]


class Folded(Protocol):
    """What a log is folded into: an engine."""

    def restore(self, chunks: Sequence[bytes]) -> None:
        """Load a checkpoint, before any fact. May raise anything."""
        ...

    def replay(self, facts: Iterable[Fact]) -> None:
        """Fold facts. May raise anything; then what is folded is of no use."""
        ...


async def fold(opened: Opened, into: Folded) -> None:
    """All that a takeover replays. Raises `LedgerCorrupt`, and what reading the log raises."""
    if opened.checkpoint is not None:
        restore(into, opened.checkpoint, where=opened.checkpoint_segment)
    async with contextlib.aclosing(opened.segments) as segments:
        async for batch in segments:
            replay(into, batch.facts, where=batch.segment)


def restore(into: Folded, chunks: Sequence[bytes], *, where: str) -> None:
    """Load a checkpoint; `where` names its first segment. Raises `LedgerCorrupt`."""
    try:
        into.restore(chunks)
    except Exception as error:
        raise LedgerCorrupt(
            f"{where}: the checkpoint that begins here can be decoded, but holds no state that this release reads: "
            f"{_words(error)}"
        ) from error


def replay(into: Folded, facts: Iterable[Fact], *, where: str) -> None:
    """Fold the facts of the segment `where`. Raises `LedgerCorrupt`."""
    try:
        into.replay(facts)
    except Exception as error:
        raise LedgerCorrupt(
            f"{where}: its facts can be decoded, but do not fit what the log says before them ({_words(error)}): "
            "segments are lost, edited, or of another ledger; restore the ledger from a backup of etcd (docs/backup.md)"
        ) from error


def _words(error: Exception) -> str:
    """A KeyError says only its key."""
    return f"{type(error).__name__}: {error}"
