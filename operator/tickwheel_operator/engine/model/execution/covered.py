"""Which instants of a task were made up for: spans, the second end exclusive, in order, none touching.

Values, so that a million tasks that never had a backfill share one.
"""

from __future__ import annotations

import bisect
from typing import TypeAlias

__all__ = ["Spans", "covered", "covered_until", "uncovered"]

_MOST = 1_000
"""Spans of a task. The oldest are forgotten, and may be made up for again."""

Spans: TypeAlias = tuple[tuple[int, int], ...]


def covered(spans: Spans, from_ms: int, to_ms: int) -> Spans:
    """With one more span."""
    apart = []
    for low, high in spans:
        if high < from_ms or low > to_ms:
            apart.append((low, high))
        else:
            from_ms, to_ms = min(low, from_ms), max(high, to_ms)
    return tuple(sorted([*apart, (from_ms, to_ms)])[-_MOST:])


def uncovered(spans: Spans, instant_ms: int) -> Spans:
    """Without this instant."""
    index = bisect.bisect_right(spans, instant_ms, key=lambda span: span[0]) - 1
    if index < 0 or instant_ms >= spans[index][1]:
        return spans
    low, high = spans[index]
    rest = [span for span in ((low, instant_ms), (instant_ms + 1, high)) if span[0] < span[1]]
    return (*spans[:index], *rest, *spans[index + 1 :])[-_MOST:]


def covered_until(spans: Spans, instant_ms: int) -> int:
    """The end of the span that has the instant, exclusive; the instant itself where none has it."""
    return next((high for low, high in spans if low <= instant_ms < high), instant_ms)
