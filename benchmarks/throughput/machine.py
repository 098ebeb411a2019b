"""What machine a run was on, so that its figures can be read: cores, load, and what a synced write costs.

Called by `run.py` once, before the first side. Standard library only.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["describe", "sync_milliseconds"]


def sync_milliseconds(*, writes: int = 200) -> float:
    """Median time of a 200-byte append with fdatasync where the sides keep their data (the temporary folder)."""
    durations = []
    with tempfile.TemporaryDirectory(prefix="tickwheel-bench-sync-") as name:
        file = os.open(Path(name) / "probe", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        try:
            for _ in range(writes):
                begin = time.perf_counter_ns()
                os.write(file, b"x" * 200)
                os.fdatasync(file)
                durations.append(time.perf_counter_ns() - begin)
        finally:
            os.close(file)
    return round(sorted(durations)[writes // 2] / 1e6, 3)


def describe() -> dict[str, Any]:
    """Facts of this machine, now."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_1m": round(os.getloadavg()[0], 2),
        "sync_ms_p50": sync_milliseconds(),
    }
