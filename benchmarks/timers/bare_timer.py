"""A process that only sleeps until the instants of `latency.py`, beside its workers: how late it is woken.

`python bare_timer.py FIRST_MS LAST_MS RATE` prints, as JSON, by how many milliseconds it woke after each instant. What
Tickwheel's workers are late beyond this is Tickwheel's; this much is the machine's, with the same load on it.
"""

from __future__ import annotations

import json
import sys
import time


def woken_late_ms(first_ms: int, last_ms: int, rate: int) -> list[float]:
    """Of `rate` instants a second, from the first until before the last (wall clock)."""
    late = []
    for number in range((last_ms - first_ms) * rate // 1_000):
        instant_ms = first_ms + number * 1_000 / rate
        time.sleep(max(0.0, instant_ms / 1_000 - time.time()))
        late.append(time.time_ns() / 1e6 - instant_ms)
    return late


if __name__ == "__main__":
    print(json.dumps([round(late, 3) for late in woken_late_ms(*map(int, sys.argv[1:4]))]))
