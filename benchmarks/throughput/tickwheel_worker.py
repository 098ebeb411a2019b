"""The worker of Tickwheel's side: one no-op handler, and a record of what became durable when.

The SDK as users have it, but for one wrapped method: when a report is answered, its attempts are durable, and that
instant is what the benchmark is about. Figures go to a file that is written while idle and at the end.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tickwheel import Context, Worker, _link, task

_starts: dict[int, list[int]] = {}
"""Token to [the benchmark's number of the dispatch, start]."""
_durable: list[tuple[int, int, int]] = []
"""Number, start, durable; nanoseconds of the monotonic clock, which all processes of a machine share."""
_progress = Path(os.environ["BENCH_PROGRESS"])
_done = 0


@task("noop")
async def noop(ctx: Context) -> None:
    """Nothing."""


@task("timed")
async def timed(ctx: Context, number: int) -> None:
    """Nothing, at a known instant."""
    _starts[ctx.token] = [number, time.monotonic_ns()]


def _count(original: Any) -> Any:
    def answered(link: Any, request: Any, answer: Any, sent_at: float) -> Any:
        global _done
        now = time.monotonic_ns()
        for token in request.succeeded:
            started = _starts.pop(token, None)
            if started is not None:
                _durable.append((started[0], started[1], now))
        if request.succeeded:
            _done += len(request.succeeded)
            _progress.write_text(f"{_done} {now}")
        return original(link, request, answer, sent_at)

    return answered


_link.Link._answered = _count(_link.Link._answered)  # type: ignore[method-assign]

if __name__ == "__main__":
    try:
        Worker().run()
    finally:
        Path(os.environ["BENCH_RECORD"]).write_text(json.dumps(_durable))
