"""The state of one attempt inside the worker, and what becomes of it.

`_link` makes one per lease and watches its clocks; `_execution` runs it; the handler sees it through `Context`. What is
reported of an attempt is made when its handler has really stopped, and not before: the operator may start another run
in its place then.
"""

from __future__ import annotations

import asyncio
import traceback
from enum import Enum
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec
from pydantic import BaseModel

from ._protocol import ErrorReport, Lease, ResultReport
from .errors import Cancelled, Interrupted, ParameterError, ResultError

if TYPE_CHECKING:
    from ._registry import Handler

__all__ = ["RESULT_LIMIT_BYTES", "Attempt", "Owner", "Report", "Stop", "failure", "outcome", "printable"]

Report: TypeAlias = ResultReport | ErrorReport | int | None
"""What to say of an attempt that ended: a result, an error, the bare token (success without a result), or nothing."""

RESULT_LIMIT_BYTES = 64 * 1024
# Characters; a little below where the operator cuts, so that it need not cut again.
_MESSAGE_LIMIT = 1_990
_TRACEBACK_LIMIT = 7_990
_OBEDIENT = (asyncio.CancelledError, Cancelled, Interrupted)
"""What a handler raises that does as it is told."""


class Stop(Enum):
    """Why a handler must stop."""

    CANCELLED = "cancelled"
    """The run was cancelled."""
    TIMEOUT = "timeout"
    """The execution timeout has passed."""
    LEASE_LOST = "lease-lost"
    """No renewal succeeded for as long as the lease: another worker may have the work by now."""
    FENCED = "fenced"
    """The operator says that the attempt is no longer this worker's."""
    DRAIN = "drain"
    """The worker stops and the drain timeout is over."""


class Owner(Protocol):
    """Who made an attempt, and wants to hear what became of it."""

    def ended(self, attempt: Attempt, report: Report) -> None:
        """Its handler stopped."""

    def returned(self, attempt: Attempt, *, wanted: bool) -> None:
        """Its handler never began; unless `wanted`, the lease is no longer ours to give back."""


class Attempt:
    """One lease and its clocks (seconds of `time.monotonic`; infinite means never)."""

    __slots__ = (
        "chances",
        "handler",
        "kill_at",
        "killed",
        "lease",
        "lease_end",
        "link",
        "progress",
        "progress_sent",
        "renew_at",
        "stop",
        "stuck",
        "task",
        "timeout_at",
    )

    def __init__(self, lease: Lease, handler: Handler, link: Owner, start: float) -> None:
        """The clocks run from `start`: when it was received, or the instant of an early lease."""
        self.lease = lease
        self.handler = handler
        self.link = link
        self.lease_end = start + lease.lease_ms / 1000
        self.renew_at = start + lease.lease_ms / 3000
        self.timeout_at = start + lease.timeout_ms / 1000 if lease.timeout_ms else inf
        self.kill_at = inf
        """When the grace of a handler that must stop is over."""
        self.killed = ""
        """What was done when it was over, for the report."""
        self.chances = 0
        """How often the handler was looked at since, and was still there."""
        self.stuck = False
        """Nothing but the end of the worker's process can stop its handler."""
        self.stop: Stop | None = None
        self.task: asyncio.Task[None] | None = None
        """The task that the handler runs in; none before it began, after it ended, and for synchronous handlers."""
        self.progress: tuple[float, str] | None = None
        """What the context was told last: a share and a text that JSON can hold."""
        self.progress_sent: tuple[float, str] | None = None

    def __repr__(self) -> str:
        return f"<Attempt {self.lease.token} of {self.lease.run} stop={self.stop}>"

    def remaining(self) -> float | None:
        """Seconds until the execution timeout; none without one."""
        return None if self.timeout_at == inf else self.timeout_at - monotonic()

    def must_stop(self, stop: Stop, now: float) -> bool:
        """Note that the handler must stop, and when its grace is over. The first reason stays, but for fencing, which
        says that no report of this attempt can matter. Returns whether this is the first."""
        if self.stop is None:
            self.stop = stop
            self.kill_at = now + self.lease.grace_ms / 1000
            return True
        if stop is Stop.FENCED:
            self.stop = stop
        return False


def outcome(attempt: Attempt, value: object, error: BaseException | None) -> Report:
    """What to report of a handler that returned `value` or raised `error`. Called in the thread that ran the handler,
    so that encoding never holds up the loop.
    """
    stop = attempt.stop
    if stop is not None:
        if stop is Stop.FENCED:
            return None
        # A cancelled handler that finished nevertheless has succeeded; one past its timeout has not.
        if stop is Stop.TIMEOUT or (stop is Stop.CANCELLED and error is not None):
            return failure(attempt, error)
        if isinstance(error, _OBEDIENT):
            # Draining: not its fault, so no failed attempt; `leaving` hands it to another worker.
            return None if stop is Stop.DRAIN else failure(attempt, error)
    if error is None:
        if value is None:
            return attempt.lease.token
        try:
            return ResultReport(token=attempt.lease.token, value=_encode(attempt.handler.name, value))
        except ResultError as refused:
            error = refused
    permanent = isinstance(error, ParameterError | ResultError)
    return ErrorReport(
        token=attempt.lease.token,
        type=type(error).__name__,
        message=_text(error),
        traceback="" if permanent else _trace(error),
        permanent=permanent,
    )


def failure(attempt: Attempt, error: BaseException | None = None) -> ErrorReport:
    """The report of an attempt that was stopped, from the reason that it was stopped for."""
    lease, name = attempt.lease, attempt.handler.name
    match attempt.stop:
        case Stop.TIMEOUT:
            kind = "TimeoutError"
            message = f"handler {name} was stopped at its execution timeout of {lease.timeout_ms} ms"
        case Stop.LEASE_LOST:
            kind = "LeaseLost"
            message = f"handler {name} was stopped: the lease was not renewed for {lease.lease_ms} ms"
        case _:
            kind = "Cancelled"
            message = f"handler {name} was cancelled"
    if attempt.killed:
        message += f", but did not stop within its grace of {lease.grace_ms} ms: {attempt.killed}"
    elif error is not None and not isinstance(error, _OBEDIENT):
        message += f", and raised {type(error).__name__}: {_text(error)}"
    return ErrorReport(
        token=lease.token,
        type=kind,
        message=message,
        traceback="" if error is None else _trace(error),
        timeout=attempt.stop is Stop.TIMEOUT,
    )


def _encode(handler: str, value: object) -> msgspec.Raw:
    try:
        data = msgspec.json.encode(value, enc_hook=_encode_other)
    except Interrupted:
        raise
    except BaseException as error:  # also whatever the user's code raises: properties, serializers
        raise ResultError(
            f"what handler {handler} returned cannot be written as JSON: {type(error).__name__}: {_text(error)}; "
            "return None, numbers, strings, lists, dicts, dataclasses or pydantic models"
        ) from error
    if len(data) > RESULT_LIMIT_BYTES:
        raise ResultError(
            f"what handler {handler} returned is {len(data):,} bytes of JSON; up to {RESULT_LIMIT_BYTES:,} are "
            "allowed: store it elsewhere and return where it is"
        )
    return msgspec.Raw(data)


def _encode_other(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"objects of type {type(value).__name__} are not supported")


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # an error's __str__ is the user's code: it must not stop the worker
        text = f"<{type(error).__name__}.__str__ raised {type(broken).__name__}>"
    return printable(text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + "...")


def _trace(error: BaseException) -> str:
    """The traceback from the handler on: the first frame is the SDK's own."""
    frames = error.__traceback__
    if frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception as broken:  # as above
        text = f"<no traceback: formatting it raised {type(broken).__name__}>"
    return printable(text if len(text) <= _TRACEBACK_LIMIT else "...\n" + text[-_TRACEBACK_LIMIT:])


def printable(text: str) -> str:
    """The text without lone surrogates, as names of files that are no UTF-8 have them: JSON cannot hold those."""
    return text.encode("utf-8", "backslashreplace").decode()
