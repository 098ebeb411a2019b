"""What a worker and the processes of its handlers tell each other, over a socket: JSON behind four bytes of length.

`_processes` is the worker's side, `_child` the other. Both are always of one version, so nothing here is a protocol.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ._attempt import Report, Stop
from ._protocol import ErrorReport, Lease, ResultReport

__all__ = [
    "LENGTH_BYTES",
    "Begin",
    "Ended",
    "Failed",
    "FromChild",
    "MustStop",
    "Plan",
    "Progress",
    "Ready",
    "ToChild",
    "frame",
]

LENGTH_BYTES: Final = 4


class Plan(msgspec.Struct):
    """The first message to a process: which handlers it is for, and how to come by them."""

    handlers: list[str]
    modules: list[tuple[str, str]]
    """Names and files of the modules whose import registers them."""
    main: dict[str, Any]
    """What `multiprocessing` needs to import the main module, if that is one of them."""
    log_level: int


class Begin(msgspec.Struct, tag=True):
    """Run this attempt; `timeout_at` is an instant of the monotonic clock, which all processes share; 0: none."""

    lease: Lease
    timeout_at: float


class MustStop(msgspec.Struct, tag=True):
    """The handler of the attempt must stop."""

    token: int
    reason: Stop


class Ready(msgspec.Struct, tag=True):
    """The handlers are imported."""


class Failed(msgspec.Struct, tag=True):
    """The handlers cannot be imported, and the process ends."""

    fault: str


class Progress(msgspec.Struct, tag=True):
    """How far the attempt is; it may come after that one's end."""

    token: int
    fraction: float
    message: str


class Ended(msgspec.Struct, tag=True):
    """The handler stopped. At most one field is set; none: nothing is to be reported."""

    succeeded: int = 0
    result: ResultReport | None = None
    error: ErrorReport | None = None

    @classmethod
    def of(cls, report: Report) -> Ended:
        """The message for a report."""
        if isinstance(report, int):
            return cls(succeeded=report)
        if isinstance(report, ResultReport):
            return cls(result=report)
        return cls(error=report)

    @property
    def report(self) -> Report:
        """The report in the message."""
        return self.result or self.error or self.succeeded or None


ToChild = Begin | MustStop
FromChild = Ready | Failed | Progress | Ended


def frame(message: msgspec.Struct) -> bytes:
    """The message as it goes over the socket."""
    body = msgspec.json.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
