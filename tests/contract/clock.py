"""A clock that stands still until a test moves it."""

from __future__ import annotations

__all__ = ["ManualClock"]


class ManualClock:
    def __init__(self, now_ms: int = 1_770_000_000_000) -> None:
        self._now_ms = now_ms
        self._boot_ms = 1_000

    def now_ms(self) -> int:
        return self._now_ms

    def now_us(self) -> int:
        return self.now_ms() * 1_000

    def boot_ms(self) -> int:
        return self._boot_ms

    def set_wall(self, now_ms: int) -> None:
        """Set the wall clock alone."""
        self._now_ms = now_ms

    def advance(self, by_ms: int) -> None:
        self._now_ms += by_ms
        self._boot_ms += by_ms
