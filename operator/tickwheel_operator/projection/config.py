"""What the projector may write, and how fast."""

from __future__ import annotations

import msgspec

__all__ = ["ProjectionConfig"]


class ProjectionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How much is written for people."""

    writes_per_s: float = 20.0
    """Requests to the API server a second, in all; 1 to 1,000."""
    burst: int = 40
    """Requests that may go at once after a pause, 1 to 1,000."""
    concurrency: int = 16
    """Requests in flight at once, 1 to 100, so that a slow one delays no other."""
    most_pending: int = 25_000
    """Tasks whose newest view is held until it is written, 1 to 4 KB each; above it the engine keeps them."""
    views_at_once: int = 100
    """The most views that are taken from the engine at once: about 2 ms of its time."""
    interval_factor: float = 1.0
    """Of the interval that each kind has (`kinds`) between two writes of an object's figures."""
    expiry_interval_s: float = 10.0
    """TaskRuns whose time is over are looked for so often, in seconds."""
    request_timeout_s: float = 15.0
    """The longest a request may take, in seconds."""
