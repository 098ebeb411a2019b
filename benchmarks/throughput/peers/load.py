"""The producers' side of a run, the same for every peer that is written in Python: barrier, pacing, records.

Used by `celery_peer.py` and `taskiq_peer.py` (asynq's `main.go` does the same in Go). A producer submits its warm-up,
says `ready`, waits for a line on standard input, submits, prints one line of JSON and lives on until its input
ends, so that the driver can read its processor time. Instants are nanoseconds of the monotonic clock,
which all processes of a machine share. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass

__all__ = ["STARTS_VARIABLE", "StartRecorder", "Submit", "due_instants", "producer_arguments", "report", "wait_for_go"]

STARTS_VARIABLE = "BENCH_STARTS"
"""Environment variable: file to which a handler appends its start; unset: the handler does nothing at all."""


@dataclass(frozen=True, kw_only=True)
class Submit:
    """One submission of the open loop."""

    id: str
    due_ns: int
    submit_ns: int


def producer_arguments(program: str) -> argparse.Namespace:
    """Parse what the driver tells a producer: how much, how fast, and under which ids."""
    parser = argparse.ArgumentParser(program)
    parser.add_argument("--prefix", required=True, help="prefix of the task ids")
    parser.add_argument("--count", type=int, required=True, help="tasks to submit")
    parser.add_argument("--concurrency", type=int, required=True, help="submissions under way at once")
    parser.add_argument("--rate", type=float, default=0.0, help="tasks a second (open loop); 0: closed loop")
    parser.add_argument("--warm-up", type=int, required=True, help="tasks submitted before ready is said")
    return parser.parse_args()


def wait_for_go() -> None:
    """Say that the warm-up is submitted; return when the driver says go, end when it has given up."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        raise SystemExit(1)


def report(*, submitted: int, first_ns: int, last_ns: int, submits: list[Submit]) -> None:
    """Tell the driver what was submitted, then live on until it closes our input."""
    record = {
        "submitted": submitted,
        "first_ns": first_ns,
        "last_ns": last_ns,
        "submits": [vars(submit) for submit in submits],
    }
    print(json.dumps(record), flush=True)
    sys.stdin.read()


def due_instants(*, count: int, rate: float, begin_ns: int) -> list[int]:
    """The instants of an open loop that begins at `begin_ns`, `rate` a second."""
    return [begin_ns + int(index * 1e9 / rate) for index in range(count)]


class StartRecorder:
    """Append `ID NANOSECONDS` to the file of starts, one write each; costs one None test when there is none."""

    def __init__(self) -> None:
        path = os.environ.get(STARTS_VARIABLE)
        flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
        self._file = os.open(path, flags, 0o600) if path else None

    def __call__(self, task_id: str) -> None:
        if self._file is not None:
            os.write(self._file, f"{task_id} {time.monotonic_ns()}\n".encode())
