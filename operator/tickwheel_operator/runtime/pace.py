"""How long facts gather, and how far ahead of its instant a run is committed and leased: as the ledger's appends go.

The host (`runtime.partition`) tells it of each append. The lead is twice the slowest of the last appends but one, which
is some more than twice their 99th percentile: an append may have to wait for the one before it, and a disk that stalls
now and then is remembered for ten seconds or more. What is leased early may gather as long as a report, so that is
added. The lead is also how long a suspend or an edit may come too late, so it is bounded.
"""

from __future__ import annotations

from collections import deque

__all__ = ["LONGEST_LEAD_MS", "Pace"]

LONGEST_LEAD_MS = 250
_SHORTEST_LEAD_MS = 6
_FIRST_LEAD_MS = 60
_REMEMBERED = 1_024
_EACH = 16
"""Appends between two looks: a look sorts them all."""
_MARGIN_MS = 3
"""For the way to the worker."""
_GATHER_MOST_MS = 20


class Pace:
    """The appends of one term."""

    def __init__(self, early: bool, gather_ms: int = 5) -> None:
        """`gather_ms` is the shortest gathering."""
        self._early = early
        self._gather_least_ms = gather_ms
        self.gather_ms = gather_ms
        """How long what nobody waits for gathers before it is appended: twice as long as the last append took. Where
        appends are slow, one for reports alone would keep the next run waiting."""
        self._appends: deque[float] = deque(maxlen=_REMEMBERED)
        self._until_look = _EACH
        self.lead_ms = _FIRST_LEAD_MS if early else 0
        """0: nothing is leased early."""

    def observe(self, seconds: float) -> bool:
        """An append took so long. True: the lead is another now."""
        self.gather_ms = max(self._gather_least_ms, min(round(2_000 * seconds), _GATHER_MOST_MS))
        if not self._early:
            return False
        self._appends.append(seconds)
        self._until_look -= 1
        if self._until_look > 0:
            return False
        self._until_look = _EACH
        slow = sorted(self._appends)[-2] if len(self._appends) > 1 else seconds
        wanted = max(round(2_000 * slow) + _MARGIN_MS, _SHORTEST_LEAD_MS) + self.gather_ms
        wanted = min(wanted, LONGEST_LEAD_MS)
        if abs(wanted - self.lead_ms) * 5 <= self.lead_ms:
            return False  # within a fifth: not worth a change
        self.lead_ms = wanted
        return True
