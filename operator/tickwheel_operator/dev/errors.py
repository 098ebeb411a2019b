"""What ends a dev session before it has begun: told to the person as it stands, without a traceback."""

from __future__ import annotations

__all__ = ["DevError"]


class DevError(Exception):
    """The session cannot start. The message says why, and what to do."""
