"""The errors that a user of the SDK can meet; each message says what to change and where.

`Cancelled` is the one that handlers may raise themselves: it says that a handler stopped because it was asked to.
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "ConfigurationError",
    "HandlerError",
    "HandlerStuckError",
    "Interrupted",
    "ParameterError",
    "ResultError",
    "TickwheelError",
]


class TickwheelError(Exception):
    """The base of all errors of this package."""


class ConfigurationError(TickwheelError):
    """A setting of the worker is missing or wrong. Raised by `Worker(...)` before anything starts."""


class HandlerError(TickwheelError):
    """A function cannot be a handler as it is written. Raised by `@task` or by `Worker(...)`."""


class ParameterError(TickwheelError):
    """The parameters of a run do not fit the handler. The handler is not called, and the run fails without a retry: the
    next attempt would have the same parameters. A handler may raise it too."""


class ResultError(TickwheelError):
    """What the handler returned is no JSON, or too much of it. The run fails without a retry: the handler has done
    its work already and would do it again."""


class Cancelled(TickwheelError):
    """The attempt was asked to stop. `Context.raise_if_cancelled` raises it in synchronous handlers; asynchronous
    ones get `asyncio.CancelledError` at their next await."""


class HandlerStuckError(TickwheelError):
    """A handler did not stop within its grace, and nothing but the end of the process can stop it. Raised by
    `Worker.serve` when all others have finished: end the process. `Worker.run` does so itself."""


class Interrupted(BaseException):
    """Raised inside a synchronous handler that runs in a thread and did not stop within its grace. Like
    `KeyboardInterrupt` it passes `except Exception`; clean up in `finally` and let it through."""
