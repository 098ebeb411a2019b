"""Time as the shell of the operator sees it; the engine never imports this module.

Two clocks, since they answer different questions: the wall clock says which instants are due, the boot clock says
how long ago something happened. The boot clock runs on through a suspend of the machine, which is what makes a
leader that slept notice that its lease is over (DESIGN, section 3).
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Where the operator's shell reads time. The simulation gives each node its own."""

    def now_ms(self) -> int:
        """Wall-clock milliseconds since the Unix epoch, UTC. May jump either way."""
        ...

    def now_us(self) -> int:
        """The same in microseconds: for those who compare clocks."""
        ...

    def boot_ms(self) -> int:
        """Milliseconds of a clock that never jumps and runs on through a suspend. The origin means nothing."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def boot_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
