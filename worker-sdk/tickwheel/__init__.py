"""Tickwheel's worker SDK: write handlers, run a worker.

from tickwheel import Worker, task

@task("shop-sync")
async def shop_sync(ctx, shop: str): ...

Worker().run()
"""

from __future__ import annotations

from ._registry import registered, task
from .context import Context
from .errors import Cancelled, ConfigurationError, HandlerError, ParameterError, ResultError, TickwheelError
from .worker import Worker

__all__ = [
    "Cancelled",
    "ConfigurationError",
    "Context",
    "HandlerError",
    "ParameterError",
    "ResultError",
    "TickwheelError",
    "Worker",
    "registered",
    "task",
]
