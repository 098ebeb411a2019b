"""Tickwheel's worker SDK: write handlers, run a worker.

from tickwheel import Worker, task

@task("shop-sync")
async def shop_sync(ctx, shop: str): ...

Worker().run()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._registry import registered, task
from .context import Context
from .errors import (
    Cancelled,
    ConfigurationError,
    HandlerError,
    HandlerStuckError,
    Interrupted,
    ParameterError,
    ResultError,
    TickwheelError,
)

if TYPE_CHECKING:
    from .worker import Worker

__all__ = [
    "Cancelled",
    "ConfigurationError",
    "Context",
    "HandlerError",
    "HandlerStuckError",
    "Interrupted",
    "ParameterError",
    "ResultError",
    "TickwheelError",
    "Worker",
    "registered",
    "task",
]


def __getattr__(name: str) -> type[Worker]:
    """`Worker`, when it is first asked for: a handler's own process needs neither it nor an HTTP client, which are more
    than half of the import."""
    if name == "Worker":
        from .worker import Worker

        return Worker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
