"""What a handler is told about its attempt, and how it tells back: the first argument of every handler.

One is made per attempt, on the hot path: it holds a reference and nothing else, and works everything out when asked.
All of it may be used from any thread.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from time import time
from typing import TYPE_CHECKING, Any

from ._attempt import printable
from .errors import Cancelled

if TYPE_CHECKING:
    from ._attempt import Attempt

__all__ = ["Context"]

_MESSAGE_LIMIT = 1_000  # characters of a progress
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Context:
    """One attempt, as its handler sees it."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __repr__(self) -> str:
        return f"<Context task={self.task} run={self.run} attempt={self.attempt} token={self.token}>"

    @property
    def run(self) -> str:
        """The run's id: the same on every attempt."""
        return self._attempt.lease.run

    @property
    def task(self) -> str:
        """The task, as `namespace/name`."""
        return self._attempt.lease.task

    @property
    def handler(self) -> str:
        """The name that the handler was registered with."""
        return self._attempt.lease.handler

    @property
    def attempt(self) -> int:
        """Which delivery this is, from 1."""
        return self._attempt.lease.attempt

    @property
    def token(self) -> int:
        """The fencing token: grows with every attempt. A store that keeps the highest token it has seen, and refuses
        lower ones, is safe from an attempt that goes on after it was given up."""
        return self._attempt.lease.token

    @property
    def idempotency_key(self) -> str:
        """The same on every attempt of this run and on none of another: hand it to whatever you call."""
        return self._attempt.lease.run

    @property
    def scheduled_time(self) -> datetime:
        """The instant that the run stands for (not when it really began), UTC."""
        return _EPOCH + timedelta(milliseconds=self._attempt.lease.scheduled_ms)

    @property
    def deadline(self) -> datetime | None:
        """When the attempt will be stopped by its execution timeout, UTC; `None` without one."""
        remaining = self.remaining
        if remaining is None:
            return None
        return _EPOCH + timedelta(seconds=time() + remaining)

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, negative once it has passed; `None` without one."""
        return self._attempt.remaining()

    @property
    def cancelled(self) -> bool:
        """Whether the handler must stop. Synchronous handlers look now and then; asynchronous ones are cancelled."""
        return self._attempt.stop is not None

    @property
    def cancel_reason(self) -> str:
        """Why the handler must stop: `cancelled`, `timeout`, `lease-lost`, `fenced`, `drain`; else empty."""
        stop = self._attempt.stop
        return "" if stop is None else stop.value

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` if the handler must stop."""
        if self._attempt.stop is not None:
            raise Cancelled(f"run {self.run} must stop: {self.cancel_reason}")

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far the attempt is: `fraction` from 0 to 1, and the first 1,000 characters of a message. Cheap: only
        the latest is sent, about once a second."""
        # Clean here, where a fault is the handler's: whoever sends it must not fail.
        text = printable(str(message)[:_MESSAGE_LIMIT])
        self._attempt.progress = (min(1.0, max(0.0, float(fraction))), text)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger named `tickwheel.task.<handler>` whose lines carry the run and the attempt."""
        lease = self._attempt.lease
        known = {"task": lease.task, "run": lease.run, "attempt": lease.attempt, "token": lease.token}
        return _RunLogger(logging.getLogger(f"tickwheel.task.{lease.handler}"), known)


class _RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the run before the message, and all it knows into the record's attributes (for JSON formatters)."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        known = dict(self.extra or {})
        kwargs["extra"] = {**known, **(kwargs.get("extra") or {})}
        return f"[{known['run']} #{known['attempt']}] {msg}", kwargs
