"""How far ahead of its instant a run is committed and leased: as long as the ledger takes, and no longer.

The host (`runtime.partition`) tells it of each append. The lead is twice the slowest of the last appends but one, which
is some more than twice their 99th percentile: an append may have to wait for the one before it, and a disk that stalls
now and then is remembered for ten seconds or more. It is also how long a suspend
or an edit may come too late, so it is bounded.
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


class Pace:
    """The appends of one term."""

    def __init__(self, early: bool) -> None:
        self._early = early
        self._appends: deque[float] = deque(maxlen=_REMEMBERED)
        self._until_look = _EACH
        self.lead_ms = _FIRST_LEAD_MS if early else 0
        """0: nothing is leased early."""

    def observe(self, seconds: float) -> bool:
        """An append took so long. True: the lead is another now."""
        if not self._early:
            return False
        self._appends.append(seconds)
        self._until_look -= 1
        if self._until_look > 0:
            return False
        self._until_look = _EACH
        slow = sorted(self._appends)[-2] if len(self._appends) > 1 else seconds
        wanted = min(max(round(2_000 * slow) + _MARGIN_MS, _SHORTEST_LEAD_MS), LONGEST_LEAD_MS)
        if abs(wanted - self.lead_ms) * 5 <= self.lead_ms:
            return False  # within a fifth: not worth a change
        self.lead_ms = wanted
        return True
